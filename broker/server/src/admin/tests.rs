//! The listener over real sockets, with requests written by hand.

use antiphon_core::{
    claims::{Ability, ActorKind, Scope, Scopes},
    explain::{Explanation, Question},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Builder,
    sync::{Notify, oneshot},
    task::JoinHandle,
};

mod reading;

use super::{
    health::STARTING,
    metrics::{Metrics, ShardMetrics},
    *,
};
use crate::{
    auth::TokenRequest,
    config::{Config, Overrides},
    identity::{Identity, development_tenant},
};

struct World {
    address: SocketAddr,
    health: Health,
    board: Board,
    identity: Identity,
    verifier: watch::Sender<Arc<Verifier>>,
    /// Backups whose path ends in `slow` tell `began` and wait for `proceed`.
    began: Arc<Notify>,
    proceed: Arc<Notify>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    _data: tempfile::TempDir,
}

impl World {
    async fn start(development: bool) -> Self {
        let data = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(data.path()).unwrap();
        let config = Config::load(None, [], Overrides::default(), 1).unwrap();
        let (verifier, verifiers) = watch::channel(Arc::new(config.verifier(&identity).unwrap()));
        let health = Health::new(2, Instant::now());
        let (began, proceed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let board = Board::new(2);
        let admin = Admin {
            health: health.clone(),
            metrics: Metrics::install().unwrap(),
            board: board.clone(),
            presence: PresenceHealth::default(),
            token: identity.admin_token().clone(),
            verifier: verifiers,
            development: development.then(|| identity.minter().clone()),
            data_dir: data.path().to_owned(),
            backup: backup(Arc::clone(&began), Arc::clone(&proceed)),
            explain: Box::new(|question| Box::pin(async { Some(explanation(question)) })),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, admin, async { drop(stopped.await) }));
        Self { address, health, board, identity, verifier, began, proceed, stop, server, _data: data }
    }

    /// Sends these bytes and reads to the end: (status, head, body).
    async fn raw(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.raw(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        (status, body)
    }

    async fn post(&self, path: &str, headers: &str, body: &str) -> (u16, Value) {
        let length = body.len();
        let json = "content-type: application/json\r\n";
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{json}content-length: {length}\r\n{headers}\r\n{body}");
        let (status, _, body) = self.raw(&request).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
    }

    async fn backup(&self, token: &str, path: &str) -> (u16, Value) {
        let headers = format!("authorization: Bearer {token}\r\n");
        self.post("/admin/backup", &headers, &format!(r#"{{"path":"{path}"}}"#)).await
    }

    fn token(&self, kind: ActorKind, scopes: Scopes) -> String {
        let user = antiphon_protocol::UserId::new("ops").unwrap();
        let request = TokenRequest { kind, scopes, ..TokenRequest::user(development_tenant(), user) };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        self.identity.minter().mint(&request, now.as_millis() as u64).unwrap()
    }
}

fn backup(began: Arc<Notify>, proceed: Arc<Notify>) -> BackupFn {
    Box::new(move |path| {
        let (began, proceed) = (Arc::clone(&began), Arc::clone(&proceed));
        Box::pin(async move {
            if path.ends_with("slow") {
                began.notify_one();
                proceed.notified().await;
            }
            match path.ends_with("full") {
                true => Err(BackupError { code: ErrorCode::StoreFull, message: "no space left".to_owned() }),
                false => Ok(BackupReport { files: 3, bytes: path.as_os_str().len() as u64 }),
            }
        })
    })
}

/// What shards would say of an event that nobody has got.
fn explanation(question: Question) -> Explanation {
    let failed = ErrorCode::StoreUnavailable;
    Explanation { question, log: Err(failed), inbox: Err(failed), sessions: Vec::new() }
}

fn run<F: Future>(test: F) -> F::Output {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[test]
fn health_and_readiness_say_why() {
    run(async {
        let world = World::start(false).await;
        assert_eq!(world.get("/healthz").await, (200, r#"{"alive":true,"stuck_shards":[]}"#.to_owned()));
        let starting = r#"{"ready":false,"reasons":["starting"]}"#.to_owned();
        assert_eq!(world.get("/readyz").await, (503, starting));
        world.health.ready_again(STARTING);
        assert_eq!(world.get("/readyz").await, (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
        let (status, head, body) = world.raw("HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!((status, body.as_str()), (200, ""));
        assert!(head.contains("cache-control: no-store") && head.contains("connection: close"), "{head}");
    });
}

#[test]
fn metrics_are_prometheus_text() {
    run(async {
        let world = World::start(false).await;
        metrics::publish(63, &metrics::ShardMetrics { connections: 5, ..Default::default() });
        let (status, text) = world.get("/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("antiphon_connections{shard=\"63\"} 5"), "{text}");
    });
}

#[test]
fn unknown_routes_and_methods_are_typed_errors() {
    run(async {
        let world = World::start(false).await;
        let (status, body) = world.get("/nothing").await;
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &error["code"], &error["number"]), (404, &"not_found".into(), &4004.into()));
        assert_eq!((&error["action"], &error["outcome"]), (&"forbidden".into(), &"not_applied".into()));
        assert_eq!(error["request_id"].as_str().unwrap().len(), 16);
        let (status, head, _) = world.raw("DELETE /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(status, 405);
        assert!(head.contains("allow: get, head"), "{head}");
        // Outside development mode the token route looks like any other unknown one.
        assert_eq!(code(&world.post("/dev/token", "", r#"{"user":"ann"}"#).await), (404, "not_found"));
        assert_eq!(world.get("/dev/token").await.0, 404);
    });
}

#[test]
fn a_development_token_is_one_request_away() {
    run(async {
        let world = World::start(true).await;
        let body = r#"{"user":"ann","device":"phone","name":"Ann"}"#;
        let (status, answer) = world.post("/dev/token", "", body).await;
        assert_eq!((status, &answer["tenant"], &answer["user"]), (200, &"dev".into(), &"ann".into()));
        let expires_at_ms = answer["expires_at_ms"].as_u64().unwrap();
        let verifier = world.verifier.borrow().clone();
        let claims = verifier.verify(answer["token"].as_str().unwrap(), expires_at_ms - 1_000).unwrap();
        assert_eq!((claims.user.as_str(), claims.expires_at_ms), ("ann", expires_at_ms));
        assert_eq!(claims.device.as_ref().unwrap().as_str(), "phone");
        // The lobby can be used at once; nothing else comes with the token.
        assert!(claims.scopes.is_empty());
        for ability in Ability::ALL {
            let given = matches!(ability, Ability::Read | Ability::Send | Ability::Signal);
            assert_eq!(claims.granted("c:lobby", *ability), given, "{ability:?}");
            assert!(!claims.granted("c:lobby2", *ability) && !claims.granted("u:bob", *ability));
        }
    });
}

#[test]
fn development_tokens_are_refused_to_others_and_for_nonsense() {
    run(async {
        let world = World::start(true).await;
        let request = |head: &str, body: &str| {
            format!("POST /dev/token HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        let json = "content-type: application/json";
        let ann = r#"{"user":"ann"}"#;
        for (head, status) in [
            (format!("host: localhost\r\n{json}"), 200),
            (format!("host: 127.0.0.1:7001\r\n{json}; charset=utf-8"), 200),
            (format!("host: evil.example\r\n{json}"), 403),
            (format!("host: localhost\r\nhost: evil.example\r\n{json}"), 403),
            (format!("host: localhost\r\norigin: https://evil.example\r\n{json}"), 403),
            ("host: localhost\r\ncontent-type: text/plain".to_owned(), 400),
            ("host: localhost".to_owned(), 400),
        ] {
            assert_eq!(world.raw(&request(&head, ann)).await.0, status, "{head}");
        }
        for (body, expected, field) in [
            ("{", "malformed", Value::Null),
            ("{}", "malformed", Value::Null),
            (r#"{"user":7}"#, "malformed", Value::Null),
            (r#"{"user":"ann","scopes":["admin:write"]}"#, "malformed", Value::Null),
            (r#"{"user":"a b"}"#, "invalid_field", "user".into()),
            (r#"{"user":"~a"}"#, "invalid_field", "user".into()),
            (r#"{"user":"ann","device":""}"#, "invalid_field", "device".into()),
            (r#"{"user":"ann","name":"\u0007"}"#, "invalid_field", "name".into()),
        ] {
            let answer = world.post("/dev/token", "", body).await;
            assert_eq!((code(&answer), &answer.1["field"]), ((400, expected), &field), "{body}");
        }
        let long = format!(r#"{{"user":"{}"}}"#, "a".repeat(17 << 10));
        assert_eq!(code(&world.post("/dev/token", "", &long).await), (413, "limit_exceeded"));
    });
}

#[test]
fn a_backup_needs_the_scope_admin_write() {
    run(async {
        let world = World::start(true).await;
        let own = world.identity.admin_token().reveal().to_owned();
        let issued = world.token(ActorKind::Service, Scopes::NONE.with(Scope::AdminWrite));
        for token in [&own, &issued] {
            let (status, report) = world.backup(token, "/backup").await;
            assert_eq!((status, report), (200, serde_json::json!({ "files": 3, "bytes": 7 })));
        }
        let reader = world.token(ActorKind::Service, Scopes::NONE.with(Scope::AdminRead));
        assert_eq!(code(&world.backup(&reader, "/backup").await), (403, "forbidden"));
        let (status, answer) = world.backup("x", "/backup").await;
        assert_eq!((status, &answer["code"], &answer["reason"]), (401, &"token_invalid".into(), &"token_shape".into()));
        assert_eq!(answer["action"], "authenticate");
        for headers in ["", "authorization: Basic b3BzOg==\r\n", "authorization: Bearer\r\n"] {
            assert_eq!(world.post("/admin/backup", headers, r#"{"path":"/b"}"#).await.0, 401, "{headers}");
        }
        let twice = format!("authorization: Bearer {own}\r\nauthorization: Bearer x\r\n");
        assert_eq!(world.post("/admin/backup", &twice, r#"{"path":"/b"}"#).await.0, 401);
        // A key reload takes the right away at once; the data directory's own token does not depend on issuers.
        world.verifier.send(Arc::new(Verifier::new(Vec::new()).unwrap())).unwrap();
        assert_eq!(world.backup(&issued, "/backup").await.1["reason"], "issuer_unknown");
        assert_eq!(world.backup(&own, "/backup").await.0, 200);
    });
}

#[test]
fn a_backup_reports_its_failures() {
    run(async {
        let world = World::start(false).await;
        let own = world.identity.admin_token().reveal().to_owned();
        let relative = world.backup(&own, "backup").await;
        assert_eq!((code(&relative), &relative.1["field"]), ((400, "invalid_field"), &"path".into()));
        let full = world.backup(&own, "/full").await;
        assert_eq!((code(&full), &full.1["message"]), ((503, "store_full"), &"no space left".into()));
        assert_eq!(code(&world.backup(&own, "/ok").await).0, 200);
    });
}

#[test]
fn backups_run_one_at_a_time() {
    run(async {
        let world = Arc::new(World::start(false).await);
        let own = world.identity.admin_token().reveal().to_owned();
        let first = {
            let (world, own) = (Arc::clone(&world), own.clone());
            tokio::spawn(async move { world.backup(&own, "/slow").await })
        };
        world.began.notified().await;
        let busy = world.backup(&own, "/b").await;
        assert_eq!(code(&busy), (503, "overloaded"));
        assert_eq!(busy.1["action"], "retry");
        world.proceed.notify_one();
        assert_eq!(first.await.unwrap().0, 200);
        assert_eq!(world.backup(&own, "/b").await.0, 200);
    });
}

#[test]
fn hostile_heads_do_no_harm() {
    run(async {
        let world = World::start(true).await;
        let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\npad: {}\r\n\r\n", "a".repeat(64 << 10));
        let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
        for request in [long.as_str(), &many, "\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            // The server may close before everything is written; what counts is that it lives on.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        }
        let smuggled = "POST /dev/token HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\
                        transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        let (_, _, body) = world.raw(smuggled).await;
        assert!(!body.contains("antiphon_"), "{body}");
        assert_eq!(world.get("/healthz").await.0, 200);
    });
}

/// As [`run`], with a clock that jumps to the next deadline whenever everything waits.
fn run_without_waiting<F: Future>(test: F) -> F::Output {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(test)
}

#[test]
fn a_peer_that_never_finishes_is_dropped() {
    run_without_waiting(async {
        let world = World::start(true).await;
        let (status, ..) = world.raw("GET /healthz HTTP/1.1\r\nhost: x\r\n").await;
        assert_ne!(status, 200);
        let head = "POST /dev/token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        let (status, _, body) = world.raw(&format!("{head}content-length: 9\r\n\r\n{{")).await;
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("did not arrive in time"), "{body}");
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_room() {
    run_without_waiting(async {
        let world = World::start(true).await;
        let start = tokio::time::Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(world.address).await.unwrap());
        }
        assert_eq!(world.get("/healthz").await.0, 200);
        assert!(start.elapsed() >= READ_TIMEOUT, "served beside {CONNECTIONS_MAX} silent ones");
    });
}

#[test]
fn the_secrets_appear_in_no_answer() {
    run(async {
        let world = World::start(true).await;
        let own = world.identity.admin_token().reveal().to_owned();
        let forged = world.token(ActorKind::Service, Scopes::NONE.with(Scope::AdminWrite)) + "AAAA";
        let mut seen = String::new();
        for path in ["/healthz", "/readyz", "/metrics", "/admin/backup", "/dev/token"] {
            seen += &world.get(path).await.1;
        }
        for token in [own.as_str(), &forged, &own[1..]] {
            seen += &world.backup(token, "/b").await.1.to_string();
        }
        assert!(!seen.contains(&own[1..]) && !seen.contains(forged.rsplit('.').next().unwrap()), "{seen}");
    });
}

#[test]
fn it_stops_when_told() {
    run(async {
        let world = World::start(false).await;
        assert_eq!(world.get("/healthz").await.0, 200);
        world.stop.send(()).unwrap();
        world.server.await.unwrap().unwrap();
        assert!(TcpStream::connect(world.address).await.is_err());
    });
}

//! The routes that tell more than numbers for everybody: the view and the question.

use super::*;

#[test]
fn a_question_needs_the_scope_admin_read_and_stays_within_its_tenant() {
    run(async {
        let world = World::start(true).await;
        let ask = async |token: &str, query: &str| {
            let head = format!("host: admin.example\r\nauthorization: Bearer {token}\r\n");
            let (status, _, body) = world.raw(&format!("GET /explain?{query} HTTP/1.1\r\n{head}\r\n")).await;
            (status, serde_json::from_str::<Value>(&body).unwrap())
        };
        let own = world.identity.admin_token().reveal().to_owned();
        let issued = |scope| world.token(ActorKind::Service, Scopes::NONE.with(scope));
        let full = "log=c%3Atea&seq=1-5&user=bob&event_id=&tenant=dev";
        for token in [&own, &issued(Scope::AdminRead), &issued(Scope::AdminWrite)] {
            let (status, answer) = ask(token, full).await;
            assert_eq!((status, &answer["verdict"]), (200, &"unknown".into()), "{answer}");
            assert_eq!(
                (&answer["tenant"], &answer["log"], &answer["seq"]),
                (&"dev".into(), &"c:tea".into(), &5.into())
            );
            assert_eq!(answer["message"], "the broker could not look: store_unavailable");
        }
        let reader = issued(Scope::AdminRead);
        assert_eq!(ask(&reader, "log=c:tea&seq=5&user=bob").await.1["tenant"], "dev", "its own, if none is named");
        assert_eq!(code(&ask(&reader, &full.replace("dev", "other")).await), (403, "forbidden"));
        assert_eq!(code(&ask(&issued(Scope::ActAs), full).await), (403, "forbidden"));
        assert_eq!(ask("x", full).await.0, 401);
        for (query, field) in [
            ("log=c:tea&seq=5&user=bob", "tenant"),
            ("log=tea&seq=5&user=bob&tenant=dev", "log"),
            ("seq=5&user=bob&tenant=dev", "log"),
            ("log=c:tea&seq=x&user=bob&tenant=dev", "seq"),
            ("log=c:tea&seq=5&tenant=dev", "user"),
            ("log=c:tea&seq=5&user=bob&tenant=dev&event_id=7", "event_id"),
            ("log=c:tea&seq=5&seq=6&user=bob&tenant=dev", "seq"),
            ("log=c:tea&seq=5&user=bob&tenant=dev&token=t", "query"),
        ] {
            let answer = ask(&own, query).await;
            assert_eq!((code(&answer), &answer.1["field"]), ((400, "invalid_field"), &field.into()), "{query}");
        }
    });
}

#[test]
fn the_view_shows_numbers_only_to_the_scope_admin_read() {
    run(async {
        let world = World::start(false).await;
        let (status, head, page) = world.raw("GET / HTTP/1.1\r\nhost: admin.example\r\n\r\n").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-security-policy: default-src 'none'") && page.contains("view.js"), "{head}");
        let view = async |token: &str, query: &str| {
            let head = format!("host: admin.example\r\nauthorization: Bearer {token}\r\n");
            let (status, _, body) = world.raw(&format!("GET /view{query} HTTP/1.1\r\n{head}\r\n")).await;
            (status, serde_json::from_str::<Value>(&body).unwrap())
        };
        let report =
            |sessions| Report { numbers: ShardMetrics { sessions, ..ShardMetrics::default() }, ..Report::default() };
        world.board.put(1, &report(3), Instant::now());
        for token in
            [world.identity.admin_token().reveal(), &world.token(ActorKind::User, Scopes::NONE.with(Scope::AdminRead))]
        {
            let (status, view) = view(token, "").await;
            assert_eq!((status, &view["not_ready"]), (200, &serde_json::json!(["starting"])));
            let sessions: Vec<_> = view["shards"].as_array().unwrap().iter().map(|shard| &shard["sessions"]).collect();
            assert_eq!(sessions, [&Value::from(0), &Value::from(3)]);
            assert!(view["samples"].is_array() && view["samples_max"] == 600);
        }
        let own = world.identity.admin_token().reveal();
        assert_eq!(view(own, "?after_ms=99999999999999").await.1["samples"], serde_json::json!([]));
        assert_eq!(code(&view(own, "?after_ms=x").await), (400, "invalid_field"));
        assert_eq!(code(&view(&world.token(ActorKind::Service, Scopes::NONE), "").await), (403, "forbidden"));
        assert_eq!(view("", "").await.0, 401);
    });
}

//! Pages that are part of the program: the console, built from `console/`, and one that shows the HTTP API.
//!
//! They are served everywhere and give no right by themselves. The console asks for a token by name in development, and
//! says elsewhere that it cannot.

use std::sync::LazyLock;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// A file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

static ASSETS: [Asset; 6] = [
    Asset {
        path: "/",
        content_type: "text/html; charset=utf-8",
        content: include_str!("../../console/dist/index.html"),
    },
    Asset {
        path: "/console.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("../../console/dist/console.js"),
    },
    Asset {
        path: "/console.css",
        content_type: "text/css; charset=utf-8",
        content: include_str!("../../console/dist/console.css"),
    },
    Asset { path: "/api/docs", content_type: "text/html; charset=utf-8", content: include_str!("docs/index.html") },
    Asset {
        path: "/api/docs.js",
        content_type: "text/javascript; charset=utf-8",
        content: include_str!("docs/docs.js"),
    },
    Asset { path: "/api/docs.css", content_type: "text/css; charset=utf-8", content: include_str!("docs/docs.css") },
];

/// All files together, since they belong together: a browser that has the page of this build has its script too.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
    for asset in &ASSETS {
        hash.update(asset.content.as_bytes());
    }
    let hex: String = hash.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    // Invariant: hexadecimal digits are a header's value.
    HeaderValue::from_str(&format!("\"{hex}\"")).unwrap_or(HeaderValue::from_static("\"\""))
});

/// Nothing from elsewhere, nothing inline, and no frame around it.
const POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data:; style-src 'self'; \
                      base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The paths of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &headers) }))
    })
}

fn answer(asset: &Asset, headers: &HeaderMap) -> Response {
    let about: [(HeaderName, HeaderValue); 3] = [
        (header::ETAG, TAG.clone()),
        // Asked for each time, sent once.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| value == *TAG);
    if known {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type))];
    (about, content_type, asset.content).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn served(request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, routes::<()>()).await });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{request}host: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        server.abort();
        response
    }

    #[tokio::test]
    async fn the_files_are_served_and_nothing_else() {
        for asset in &ASSETS {
            let response = served(&format!("GET {} HTTP/1.1\r\n", asset.path)).await;
            let (head, body) = response.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert!(head.contains(&format!("content-type: {}", asset.content_type)), "{head}");
            assert!(head.contains("content-security-policy: default-src 'self';"), "{head}");
            assert!(head.contains("cache-control: no-cache"), "{head}");
            assert_eq!(body, asset.content);
        }
        for path in ["/index.html", "/console.map", "/dist/console.js"] {
            let response = served(&format!("GET {path} HTTP/1.1\r\n")).await;
            assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
        }
    }

    #[tokio::test]
    async fn what_a_browser_has_is_not_sent_again() {
        let tag = TAG.to_str().unwrap();
        let response = served(&format!("GET /console.js HTTP/1.1\r\nif-none-match: {tag}\r\n")).await;
        assert!(response.starts_with("HTTP/1.1 304 "), "{response}");
        assert!(response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn the_pages_hold_nothing_that_the_policy_forbids() {
        for page in ASSETS.iter().filter(|asset| asset.content_type.starts_with("text/html")) {
            for forbidden in ["<style", "style=", "onclick=", "=\"http", "url(http"] {
                assert!(!page.content.contains(forbidden), "{forbidden}");
            }
            assert_eq!(page.content.matches("<script").count(), page.content.matches("<script src=").count());
        }
    }
}

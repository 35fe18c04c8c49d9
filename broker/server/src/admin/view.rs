//! The operators' view: a page that anybody may load and that shows nothing, and `GET /view` with the numbers for it.

use std::{collections::BTreeMap, time::Instant};

use antiphon_core::claims::Scope;
use hyper::{
    Request, StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS},
};
use serde_json::{Value, json};

use super::{
    Shared, access,
    board::Slot,
    query::Query,
    response::{Answer, Refusal, json_answer, text_answer},
    samples::SAMPLES_MAX,
};

/// Nothing but these files and the listener itself; no inline script or style, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's file at this path.
pub(super) fn file(path: &str) -> Option<Answer> {
    let (content_type, body) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("view/index.html")),
        "/view.css" => ("text/css; charset=utf-8", include_str!("view/view.css")),
        "/view.js" => ("text/javascript; charset=utf-8", include_str!("view/view.js")),
        "/chart.js" => ("text/javascript; charset=utf-8", include_str!("view/chart.js")),
        "/element.js" => ("text/javascript; charset=utf-8", include_str!("view/element.js")),
        "/explain.js" => ("text/javascript; charset=utf-8", include_str!("view/explain.js")),
        _ => return None,
    };
    let mut answer = text_answer(StatusCode::OK, content_type, body.to_owned());
    let mut set = |name: HeaderName, value| answer.headers_mut().insert(name, HeaderValue::from_static(value));
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    Some(answer)
}

/// The numbers. `after_ms` leaves out samples that the page has.
pub(super) fn numbers<B>(shared: &Shared, request: &Request<B>, now_ms: u64) -> Result<Answer, Refusal> {
    let admin = &shared.admin;
    access::require(admin, request.headers(), now_ms, &[Scope::AdminRead, Scope::AdminWrite])?;
    let mut query = Query::read(request.uri().query().unwrap_or_default(), &["after_ms"])?;
    let after_ms = query.optional("after_ms", str::parse)?.unwrap_or(0);
    let slots = admin.board.slots();
    let shards: Vec<Value> = slots.iter().map(shard).collect();
    let refusals = admin.board.refusals().into_iter().filter(|(_, count)| *count > 0);
    let refusals: BTreeMap<_, _> = refusals.map(|(code, count)| (code.code(), count)).collect();
    let samples = shared.samples().to_json(after_ms);
    Ok(json_answer(
        StatusCode::OK,
        &json!({
            "time_ms": now_ms,
            "version": env!("CARGO_PKG_VERSION"),
            "development": admin.development.is_some(),
            "not_ready": admin.health.reasons(Instant::now()),
            "samples_max": SAMPLES_MAX,
            "shards": shards,
            "refusals": refusals,
            "samples": samples,
        }),
    ))
}

/// What one shard holds, and what it did in the last second.
fn shard(slot: &Slot) -> Value {
    let numbers = &slot.report.numbers;
    json!({
        "connections": numbers.connections,
        "sessions": numbers.sessions,
        "logs": numbers.logs_loaded,
        "outbox_bytes": numbers.outbox_bytes,
        "turn_us_max": numbers.loop_turn_us_max,
        "appended": slot.rates.appended.round(),
        "delivered": slot.rates.delivered.round(),
        "refused": slot.rates.refused.round(),
        "behind_total": numbers.subscribers_behind,
        "sync_p99_us": slot.recent_syncs.percentile_us(99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_page_and_its_scripts_name_is_there_and_nothing_is_inline() {
        let page = include_str!("view/index.html");
        let scripts = [page, include_str!("view/view.js"), include_str!("view/explain.js")].concat();
        let mut named = 0;
        for part in ["src=\"", "href=\"", "from \"./"].iter().flat_map(|lead| scripts.split(lead).skip(1)) {
            let name = part.split('"').next().unwrap();
            if !name.starts_with(['#', 'd']) {
                assert!(file(&format!("/{name}")).is_some(), "{name}");
                named += 1;
            }
        }
        assert!(named >= 5, "{named}");
        for inline in ["<style", " style=", "<script>", " onclick=", " onsubmit="] {
            assert!(!page.contains(inline), "{inline}");
        }
        assert_eq!(file("/view/index.html").map(drop), None);
        let page = file("/").unwrap();
        assert!(page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'; "));
    }
}

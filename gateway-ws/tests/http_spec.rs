//! The HTTP table of SPEC.md, and the OpenAPI document, name the requests that are served.

use std::{collections::BTreeSet, fs, path::Path};

use antiphon_gateway_ws::{openapi_document, requests};

fn specified() -> BTreeSet<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/SPEC.md");
    let spec = fs::read_to_string(path).expect("SPEC.md");
    let rows = spec.lines().skip_while(|line| *line != "| Method | Path | Frame |").skip(2);
    let cells =
        |line: &str| -> Vec<String> { line.trim_matches('|').split('|').map(|cell| cell.trim().into()).collect() };
    let rows = rows.take_while(|line| line.starts_with('|')).map(cells);
    rows.map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect()
}

#[test]
fn every_request_is_specified() {
    let served: BTreeSet<_> = requests().map(|(m, p, f)| (m.to_owned(), p.to_owned(), f.name().to_owned())).collect();
    assert_eq!(served, specified());
}

#[test]
fn the_document_names_every_request_and_defines_what_it_refers_to() {
    let document: serde_json::Value = serde_json::from_str(openapi_document()).expect("JSON");
    for (method, path, _) in specified() {
        let operation = &document["paths"][format!("/api/v1{path}")][method.to_lowercase()];
        assert!(operation["operationId"].is_string(), "{method} {path}");
    }
    let text = openapi_document();
    for reference in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"][reference].is_object(), "{reference} is not defined");
    }
}

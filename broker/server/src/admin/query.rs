//! The fields of a query, each at most once.

use std::{collections::BTreeMap, fmt::Display};

use super::response::Refusal;

/// What has not been taken yet.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<&'static str, String>);

impl Query {
    /// Reads a query that may have these fields.
    pub(super) fn read(query: &str, known: &[&'static str]) -> Result<Self, Refusal> {
        let mut fields = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(Refusal::field("query", format!("expected only {}", known.join(", "))));
            };
            if fields.insert(*known, value.into_owned()).is_some() {
                return Err(Refusal::field(known, "given twice"));
            }
        }
        Ok(Self(fields))
    }

    /// A field that may be absent; an empty one counts as absent, because forms send those.
    pub(super) fn optional<T, E: Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Refusal> {
        let Some(text) = self.0.remove(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        parse(&text).map(Some).map_err(|error| Refusal::field(name, error.to_string()))
    }

    /// A field that must be there.
    pub(super) fn required<T, E: Display>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, Refusal> {
        self.optional(name, parse)?.ok_or_else(|| Refusal::field(name, format!("expected {expected}")))
    }
}

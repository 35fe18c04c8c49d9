//! `/api/v1/openapi.json`: the table of requests and the descriptors of the protocol, told in OpenAPI 3.1.

use std::{collections::BTreeSet, sync::LazyLock};

use antiphon_protocol::{DESCRIPTORS, FrameType, limits::BATCH_RECORDS_MAX};
use axum::{
    http::{StatusCode, header},
    response::IntoResponse,
};
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use serde_json::{Map, Value, json};

use super::routes::{Kind, ROUTES, Route};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());

/// The HTTP API as an OpenAPI document, in JSON.
pub fn document() -> &'static str {
    DOCUMENT.as_str()
}

pub(super) async fn serve() -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], document())
}

/// Members that hold a UUID, as section 13 says.
const UUIDS: [&str; 3] = ["session_id", "sender_instance", "event_id"];

fn build() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(format!("/api/v1{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route);
    }
    paths.insert("/api/v1/users/{user}/presence".into(), json!({ "get": presence() }));
    paths.insert("/api/v1/tickets".into(), json!({ "post": tickets() }));
    paths.insert("/api/v1/logs/{log}/stream".into(), json!({ "get": stream() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Antiphon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Conversations over HTTP. Every request is one frame of the protocol; SPEC.md says what it does.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> =
        path_names(route.path).map(|name| parameter(name, "path", id_schema(name))).collect();
    for (name, kind) in route.query {
        let schema = match (*name, kind) {
            ("backward", _) => json!({ "type": "boolean" }),
            (_, Kind::Literal) => counter(),
            (_, Kind::Text) => json!({ "type": "string" }),
        };
        parameters.push(parameter(name, "query", schema));
    }
    let mut responses = errors();
    let (status, schema) = success(route);
    responses[status] = match schema {
        Some(schema) => json!({ "description": "Done", "content": { "application/json": { "schema": schema } } }),
        None => json!({ "description": "Done" }),
    };
    if matches!(route.frame, FrameType::Send | FrameType::ConversationCreate) {
        let mut again = responses[status].clone();
        again["description"] = json!("It was there already");
        responses["200"] = again;
    }
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if route.frame == FrameType::Send {
        let key = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
        let header = json!({ "name": "Idempotency-Key", "in": "header", "required": false, "schema": key });
        operation["parameters"].as_array_mut().map(|parameters| parameters.push(header)).unwrap_or_default();
    }
    if route.has_body {
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": request_schema(route) } },
        });
    }
    operation
}

fn operation_id(route: &Route) -> String {
    match (route.frame, route.path) {
        (FrameType::Fetch, path) if path.ends_with("messages") => "fetch_messages".into(),
        (FrameType::Fetch, _) => "fetch_events".into(),
        (frame, _) => frame.name().to_lowercase(),
    }
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn parameter(name: &str, place: &str, schema: Value) -> Value {
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

fn id_schema(name: &str) -> Value {
    match name {
        "log" => json!({ "type": "string", "pattern": "^[cu]:[A-Za-z0-9._:@|~-]{1,64}$" }),
        _ => json!({ "type": "string", "pattern": "^[A-Za-z0-9._:@|~-]{1,64}$" }),
    }
}

fn counter() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_u64 })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn success(route: &Route) -> (&'static str, Option<Value>) {
    match route.frame {
        FrameType::Send => ("201", Some(reference("Ack"))),
        FrameType::ConversationCreate => ("201", Some(reference("Conversation"))),
        FrameType::ConversationGet
        | FrameType::ConversationUpdate
        | FrameType::ConversationDelete
        | FrameType::MemberAdd
        | FrameType::MemberRemove
        | FrameType::MemberSetRole
        | FrameType::Join => ("200", Some(reference("Conversation"))),
        FrameType::Sync => ("200", Some(reference("Synced"))),
        FrameType::Import => ("200", Some(reference("BatchAck"))),
        FrameType::Fetch if route.path.ends_with("messages") => ("200", Some(reference("MessagesPage"))),
        FrameType::Fetch => ("200", Some(reference("Page"))),
        FrameType::Signal => ("202", None),
        _ => ("204", None),
    }
}

fn errors() -> Value {
    let error = |description: &str| json!({ "description": description, "content": { "application/json": { "schema": reference("Error") } } });
    json!({
        "400": error("The request is wrong; `field` says where"),
        "401": error("No token, or one that is not accepted"),
        "403": error("The user may not do that"),
        "404": error("There is no such thing for this user"),
        "409": error("It exists with other content"),
        "410": error("The user was removed"),
        "413": error("Too large"),
        "429": error("Too many requests; Retry-After says when"),
        "500": error("A fault of the broker"),
        "503": error("Not now; the same request may be sent again"),
        "507": error("The store has no space"),
    })
}

fn presence() -> Value {
    let mut responses = errors();
    responses["200"] = json!({ "description": "How the user is", "content": { "application/json": { "schema": json!({
        "type": "object",
        "required": ["user", "status", "text"],
        "properties": {
            "user": { "type": "string" },
            "status": { "enum": ["offline", "online", "away", "busy", "unknown"] },
            "text": { "type": "string" },
        },
    }) } } });
    json!({
        "operationId": "presence_get",
        "summary": "How a user is now",
        "parameters": [parameter("user", "path", id_schema("user"))],
        "responses": responses,
    })
}

fn tickets() -> Value {
    let mut responses = errors();
    let ticket = json!({ "type": "object", "required": ["ticket"], "properties": { "ticket": { "type": "string" } } });
    responses["201"] = json!({ "description": "A ticket", "content": { "application/json": { "schema": ticket } } });
    let body = json!({
        "type": "object",
        "required": ["log"],
        "properties": { "log": id_schema("log") },
        "additionalProperties": false,
    });
    json!({
        "operationId": "ticket_create",
        "summary": "A ticket to read one log as server-sent events, for as long as the token lives",
        "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
        "responses": responses,
    })
}

fn stream() -> Value {
    let mut responses = errors();
    responses["200"] = json!({
        "description": "Events without end; `id` is the position, and Last-Event-ID resumes after it",
        "content": { "text/event-stream": { "schema": { "type": "string" } } },
    });
    let position = json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" });
    json!({
        "operationId": "log_stream",
        "summary": "Follow a log as server-sent events",
        "parameters": [
            parameter("log", "path", id_schema("log")),
            parameter("after", "query", position.clone()),
            parameter("ticket", "query", json!({ "type": "string" })),
            json!({ "name": "Last-Event-ID", "in": "header", "required": false, "schema": position }),
        ],
        "responses": responses,
    })
}

fn file() -> Option<prost_types::FileDescriptorProto> {
    // Invariant: the protocol's tests hold the bytes to the schema.
    FileDescriptorSet::decode(DESCRIPTORS).ok()?.file.into_iter().next()
}

fn request_schema(route: &Route) -> Value {
    match route.frame {
        FrameType::Send => return send_schema(),
        FrameType::Import => return import_schema(),
        _ => {}
    }
    let in_path: BTreeSet<&str> = path_names(route.path).collect();
    let name = match route.frame {
        FrameType::MemberSetRole => "MemberSetRole",
        FrameType::MemberAdd => "MemberAdd",
        FrameType::ConversationCreate => "ConversationCreate",
        FrameType::ConversationUpdate => "ConversationUpdate",
        FrameType::Preferences => "Preferences",
        FrameType::Cursor => "Cursor",
        FrameType::Signal => "Signal",
        FrameType::Hide => "Hide",
        FrameType::Block => "Block",
        _ => "PresenceSet",
    };
    let Some(file) = file() else { return json!({}) };
    let message = file.message_type.iter().find(|message| message.name() == name);
    message.map_or_else(|| json!({}), |message| object(message, &in_path, true))
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    if let Some(file) = file() {
        for message in &file.message_type {
            schemas.insert(message.name().to_owned(), object(message, &BTreeSet::new(), false));
        }
        for enumeration in &file.enum_type {
            schemas.insert(enumeration.name().to_owned(), values(enumeration));
        }
    }
    schemas.insert("Row".into(), row_schema());
    schemas.insert("Ack".into(), ack_schema());
    schemas.insert("Page".into(), page_schema());
    Value::Object(schemas)
}

/// A Protobuf message as an object; content is open, because its members depend on its type.
fn object(message: &DescriptorProto, left_out: &BTreeSet<&str>, is_request: bool) -> Value {
    let has_content = message.field.iter().any(|field| field.name() == "body");
    let mut properties = Map::new();
    for field in message.field.iter().filter(|field| !left_out.contains(field.name())) {
        if !(has_content && matches!(field.name(), "body" | "envelope" | "content_type")) {
            properties.insert(field.name().to_owned(), field_schema(message, field));
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties });
    if is_request && !has_content {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

fn field_schema(message: &DescriptorProto, field: &FieldDescriptorProto) -> Value {
    let type_name = field.type_name().rsplit('.').next().unwrap_or_default();
    let one = match field.r#type() {
        Type::Bool => json!({ "type": "boolean" }),
        Type::Uint32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Type::Uint64 => counter(),
        Type::String => json!({ "type": "string" }),
        Type::Bytes if UUIDS.contains(&field.name()) => json!({ "type": "string", "format": "uuid" }),
        Type::Bytes if field.name() == "row" => reference("Row"),
        Type::Bytes => json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]*$" }),
        Type::Message if type_name == "Position" => json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" }),
        Type::Enum => match message.enum_type.iter().find(|own| own.name() == type_name) {
            Some(own) => values(own),
            None => reference(type_name),
        },
        _ => reference(type_name),
    };
    if field.label() == Label::Repeated { json!({ "type": "array", "items": one }) } else { one }
}

fn values(enumeration: &prost_types::EnumDescriptorProto) -> Value {
    json!({ "enum": enumeration.value.iter().map(|value| value.name().to_lowercase()).collect::<Vec<_>>() })
}

fn send_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "client_message_id": { "type": "string", "format": "uuid" },
            "kind": { "enum": ["message", "message.edit", "message.redact", "reaction", "pin"] },
            "act_as": { "type": "string" },
            "text": { "type": "string" },
            "data": {},
            "body_b64": { "type": "string", "pattern": "^[A-Za-z0-9_-]*$" },
            "content_type": { "type": "string" },
            "relates_to": { "type": "object" },
            "reply_to": { "type": "object" },
            "thread": { "type": "object" },
            "mentions": { "type": "array", "items": { "type": "string" } },
            "attachments": { "type": "array", "items": { "type": "object" } },
            "properties": { "type": "object", "additionalProperties": { "type": "string" } },
            "silent": { "type": "boolean" },
            "expires_at_ms": counter(),
        },
        "additionalProperties": false,
    })
}

fn import_schema() -> Value {
    let mut record = send_schema();
    record["properties"]["log"] = id_schema("log");
    record["properties"]["time_ms"] = counter();
    record["properties"]["external_id"] = json!({ "type": "string", "minLength": 1, "maxLength": 255 });
    record["properties"]["dseq"] = counter();
    record["required"] = json!(["log", "time_ms"]);
    json!({
        "type": "object",
        "properties": { "records": { "type": "array", "items": record, "minItems": 1, "maxItems": BATCH_RECORDS_MAX } },
        "required": ["records"],
        "additionalProperties": false,
    })
}

fn row_schema() -> Value {
    json!({
        "type": "object",
        "required": ["seq", "msgno", "time_ms", "event_id", "kind", "sender"],
        "properties": {
            "seq": counter(),
            "msgno": counter(),
            "time_ms": counter(),
            "event_id": { "type": "string", "format": "uuid" },
            "client_message_id": { "type": "string", "format": "uuid" },
            "content_hash": { "type": "string", "pattern": "^[0-9a-f]{16}$" },
            "kind": { "type": ["string", "integer"] },
            "sender": { "type": "string" },
            "via": { "type": "string" },
            "redacted": { "type": "boolean" },
            "unchanged": { "type": "boolean" },
            "imported": { "type": "boolean" },
            "text": { "type": "string" },
        },
    })
}

fn ack_schema() -> Value {
    json!({
        "type": "object",
        "required": ["position", "msgno", "time_ms", "event_id"],
        "properties": {
            "position": { "type": "string", "pattern": "^[0-9]+-[0-9]+$" },
            "msgno": counter(),
            "time_ms": counter(),
            "event_id": { "type": "string", "format": "uuid" },
            "duplicate": { "type": "boolean" },
        },
    })
}

fn page_schema() -> Value {
    json!({
        "type": "object",
        "required": ["next", "head", "floor", "epoch", "rows"],
        "properties": {
            "next": counter(),
            "head": counter(),
            "floor": counter(),
            "epoch": counter(),
            "rows": { "type": "array", "items": reference("Row") },
        },
    })
}

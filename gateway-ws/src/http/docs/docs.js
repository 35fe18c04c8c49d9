// Shows /api/v1/openapi.json: every request with its parameters, body and answers, and the objects that they name.

const description = await (await fetch("/api/v1/openapi.json")).json();
document.getElementById("about").textContent = `${description.info.description} Version ${description.info.version}.`;
document.getElementById("operations").append(...sections());

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/** Requests by the first part of their path. */
function sections() {
  const groups = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const group = path.split("/")[3];
      groups.set(group, [...(groups.get(group) ?? []), details(method, path, operation)]);
    }
  }
  groups.set("Objects", objects());
  return [...groups].map(([name, entries]) =>
    element("section", {}, element("h2", { textContent: name }), ...entries),
  );
}

/** What requests and answers are made of, by name. */
function objects() {
  return Object.entries(description.components.schemas).map(([name, schema]) =>
    element(
      "details",
      { id: name },
      element("summary", {}, element("code", { textContent: name })),
      element("div", { className: "body" }, list("Members", members(schema)) ?? type(schema)),
    ),
  );
}

function details(method, path, operation) {
  const head = element(
    "summary",
    {},
    element("span", { className: "method", textContent: method.toUpperCase() }),
    element("code", { textContent: path }),
    element("span", { className: "soft", textContent: operation.summary }),
  );
  const body = operation.requestBody?.content["application/json"].schema;
  return element(
    "details",
    { id: operation.operationId },
    head,
    element(
      "div",
      { className: "body" },
      list("Parameters", (operation.parameters ?? []).map(parameter)),
      body && list("Body", members(body)),
      list("Answers", Object.entries(operation.responses).map(answer)),
    ),
  );
}

function parameter({ name, in: place, required, schema }) {
  return [name, `${place}${required ? "" : ", may be left out"}: ${type(schema)}`];
}

function answer([status, { description: meaning, content }]) {
  const schema = content && Object.values(content)[0].schema;
  return [status, schema ? `${meaning}: ${type(schema)}` : meaning];
}

function members(schema) {
  const { properties = {}, required = [] } = resolve(schema);
  return Object.entries(properties).map(([name, property]) => [
    name,
    `${type(property)}${required.includes(name) ? "" : ", may be left out"}`,
  ]);
}

function list(title, pairs) {
  if (pairs.length === 0) return undefined;
  const rows = pairs.flatMap(([term, meaning]) => [
    element("dt", {}, element("code", { textContent: term })),
    element("dd", { textContent: meaning }),
  ]);
  return element("section", {}, element("h3", { textContent: title }), element("dl", {}, ...rows));
}

function resolve(schema) {
  const name = schema.$ref?.split("/").at(-1);
  return name ? description.components.schemas[name] : schema;
}

/** A schema in words; an object that has a name is called by it. */
function type(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map(type).join(" or ");
  if (schema.type === "array") return `list of ${type(schema.items)}`;
  if (schema.type === "object" && schema.properties) {
    const inner = Object.entries(schema.properties).map(([name, property]) => `${name}: ${type(property)}`);
    return `{ ${inner.join(", ")} }`;
  }
  const kind = [schema.type ?? "any JSON"].flat().join(" or ");
  return schema.format ? `${kind} (${schema.format})` : kind;
}

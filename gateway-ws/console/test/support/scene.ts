/** A small world to look at: people, a group and direct chats, with something of everything. */

import type { Broker } from "./broker.js";

export async function scene(broker: Broker): Promise<void> {
  const send = async (user: string, log: string, body: object) => {
    const path = `/logs/${encodeURIComponent(log)}/events`;
    const { position, event_id } = await broker.api(user, path, "POST", body);
    return { seq: Number(String(position).split("-")[1]), event_id: String(event_id) };
  };
  const create = async (user: string, body: object) => {
    const { conversation } = await broker.api(user, "/conversations", "POST", body);
    return `c:${conversation}`;
  };
  const members = [{ user: "bob" }, { user: "eve" }, { user: "mara" }];
  const team = await create("ann", { conversation: "spring", kind: "group", title: "Spring release", members });
  const bob = await create("bob", { kind: "direct", members: [{ user: "ann" }] });
  const eve = await create("eve", { kind: "direct", members: [{ user: "ann" }] });
  const quiet = await create("mara", {
    conversation: "lunch",
    kind: "group",
    title: "Lunch",
    members: [{ user: "ann" }],
  });
  await send("eve", eve, { text: "Did the notes reach you?" });
  await send("ann", eve, { text: "They did, thank you" });
  await send("mara", quiet, { text: "Soup today" });
  await send("mara", quiet, { text: "And bread" });
  await send("bob", bob, { text: "I have pushed the last piece" });
  await send("bob", bob, { text: "Do you have ten minutes before noon?" });
  await send("bob", team, { text: "Good morning. The last open point is the upgrade note." });
  const plan = await send("mara", team, {
    text: "Plan for today: freeze at noon, tag at two, and nobody touches the gateway in between. The long run of last night is clean: no message lost, none shown twice.",
  });
  const asked = await send("ann", team, { text: "Who writes the upgrade note?" });
  await send("bob", team, { text: "I do", reply_to: asked });
  const draft = await send("bob", team, { text: "A draft is at https://docs.example/upgrade, comments welcome" });
  await send("bob", team, {
    kind: "message.edit",
    relates_to: draft,
    text: "The draft is at https://docs.example/upgrade, comments are welcome",
  });
  const wrong = await send("eve", team, { text: "wrong window" });
  await send("eve", team, { kind: "message.redact", relates_to: wrong });
  const read = await send("ann", team, { text: "Read it. Clear and short, I would ship it as it is." });
  for (const user of ["bob", "eve"]) await send(user, team, { kind: "reaction", relates_to: { ...read, key: "👍" } });
  await send("mara", team, { kind: "reaction", relates_to: { ...read, key: "❤️" } });
  await send("bob", team, { kind: "reaction", relates_to: { ...plan, key: "🙏" } });
  await send("ann", team, { kind: "reaction", relates_to: { ...plan, key: "🙏" } });
  await send("mara", team, { kind: "pin", relates_to: plan });
  const last = await send("ann", team, { text: "Then we are done before noon." });
  for (const user of ["bob", "eve"])
    await broker.api(user, `/logs/${encodeURIComponent(team)}/cursor`, "PUT", {
      read: user === "eve" ? last.seq : read.seq,
    });
  await broker.api("ann", "/conversations/lunch/preferences", "PATCH", { muted: true });
  await broker.api("ann", "/conversations/spring/preferences", "PATCH", { pinned: true });
}

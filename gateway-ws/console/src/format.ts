/** Times and names as people read them. */

const DAY_MS = 86_400_000;
const time = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat("en", { weekday: "short" });
const longDay = new Intl.DateTimeFormat("en", { weekday: "long", day: "numeric", month: "long" });
const otherYear = new Intl.DateTimeFormat("en", { day: "numeric", month: "long", year: "numeric" });
const shortDay = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
const exact = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "medium" });

export function clock(ms: number): string {
  return time.format(ms);
}

export function exactly(ms: number): string {
  return exact.format(ms);
}

/** The beginning of a day, which also names it. */
export function dayOf(ms: number): number {
  return new Date(ms).setHours(0, 0, 0, 0);
}

export function dayName(day: number, now: number): string {
  const ago = Math.round((dayOf(now) - day) / DAY_MS);
  if (ago === 0) return "Today";
  if (ago === 1) return "Yesterday";
  return new Date(day).getFullYear() === new Date(now).getFullYear() ? longDay.format(day) : otherYear.format(day);
}

/** In a list: a time today, then a day. */
export function briefly(ms: number, now: number): string {
  if (ms === 0) return "";
  const ago = Math.round((dayOf(now) - dayOf(ms)) / DAY_MS);
  if (ago <= 0) return clock(ms);
  if (ago === 1) return "Yesterday";
  return ago < 7 ? weekday.format(ms) : shortDay.format(ms);
}

/** At most two letters that stand for a name. */
export function initials(name: string): string {
  const words = name.split(/[^\p{L}\p{N}]+/u).filter((word) => word !== "");
  const letters = words.length > 1 ? [words[0], words.at(-1)] : [words[0]];
  return (
    letters
      .map((word) => [...(word ?? "")][0] ?? "")
      .join("")
      .toUpperCase() || "?"
  );
}

/** "ann", "ann and bob", "ann, bob and 2 others". */
export function list(names: readonly string[]): string {
  const [first, second, third, ...rest] = names;
  if (second === undefined) return first ?? "";
  if (third === undefined) return `${first} and ${second}`;
  if (rest.length === 0) return `${first}, ${second} and ${third}`;
  return `${first}, ${second} and ${rest.length + 1} others`;
}

export function count(n: number, one: string): string {
  return `${n} ${n === 1 ? one : `${one}s`}`;
}

// What a person filters events by: words that all have to be there, key:value of the envelope,
// * in values, and - before what is not wanted.

const FIELDS = ["topic", "severity", "host", "source", "workspace", "correlation", "id"];

function term(text) {
  const not = text.startsWith("-");
  if (not) text = text.slice(1);
  const at = text.indexOf(":");
  const field = at > 0 ? text.slice(0, at) : "";
  let test;
  if (FIELDS.includes(field)) {
    const wanted = text.slice(at + 1).toLowerCase();
    const parts = wanted.split("*");
    test = parts.length === 1
      ? (row) => String(row[field] ?? "").toLowerCase() === wanted
      : (row) => like(String(row[field] ?? "").toLowerCase(), parts);
  } else {
    const wanted = text.toLowerCase();
    test = (row) => (row.find ??= [row.topic, row.severity, row.host, row.source, row.workspace,
      row.gist, row.id, row.error].join(" ").toLowerCase()).includes(wanted);
  }
  return not ? (row) => !test(row) : test;
}

// Parts in order, the first at the beginning and the last at the end; no regular expression of
// somebody's text.
function like(value, parts) {
  if (!value.startsWith(parts[0])) return false;
  let at = parts[0].length;
  for (const part of parts.slice(1, -1)) {
    const found = value.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  const last = parts.at(-1);
  return value.length - at >= last.length && value.endsWith(last);
}

export function matcher(text) {
  const terms = text.split(/\s+/).filter((one) => one && one !== "-").map(term);
  return (row) => terms.every((one) => one(row));
}

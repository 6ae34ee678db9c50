"use strict";
// Asks this node every two seconds and writes what it says into the page, as text.
//
//   tick ─▶ call, one per part ─▶ show the part, or what is the matter with it ─▶ tick
//
// Parts fail by themselves: without a quorum the lists of the cluster are missing, the rest is there.

// Every request of this page. A test holds them against the API's description.
const ROUTES = {
  status: "GET /admin/v1/status",
  members: "GET /admin/v1/members",
  shards: "GET /admin/v1/shards",
  violations: "GET /admin/v1/violations",
  metrics: "GET /metrics",
  tasks: "GET /admin/v1/tasks",
  letters: "GET /admin/v1/dead-letters",
  retry: "POST /admin/v1/dead-letters/{id}/retry",
  discard: "POST /admin/v1/dead-letters/{id}/discard",
};
const SHOP = "/v1/";
const PERIOD_MS = 2000;
// Longer than a node takes to say that there is no quorum.
const PATIENCE_MS = 8000;
// Lists ask the owners of all shards: not with every tick.
const LIST_TICKS = 5;
const LIST_LIMIT = 50;
const RATES_KEPT = 60;
const TOKEN = "quorate-token";

const of = (id) => document.getElementById(id);
const state = {
  ticks: 0,
  timer: 0,
  paused: false,
  members: [],
  shards: [],
  /** What was counted when metrics were read last. */
  before: null,
  rates: [],
  /** Idempotency keys of what has no answer yet. */
  keys: new Map(),
};

/** A problem that the node answered with. */
class Refused extends Error {
  constructor(status, code, detail) {
    super(`${code}: ${detail}`);
    this.status = status;
  }
}

/** No answer, or half of one. */
class Unanswered extends Error {}

async function call(route, { id = "", query = "", headers = {} } = {}) {
  const [method, path] = route.split(" ");
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers.authorization = `Bearer ${token}`;
  // Relative, as the routes may be mounted anywhere.
  const url = "." + path.replace("{id}", encodeURIComponent(id)) + query;
  const options = { method, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
  const [response, body] = await exchange(url, options).catch((error) => {
    throw new Unanswered(`no answer (${error.message})`);
  });
  if (!response.ok) throw new Refused(response.status, body.code ?? response.status, body.detail ?? "no reason given");
  return body;
}

async function exchange(url, options) {
  const response = await fetch(url, options);
  const isJson = (response.headers.get("content-type") ?? "").includes("json");
  return [response, isJson ? await response.json() : await response.text()];
}

// ---- one round

const PARTS = {
  status: { problem: "node-problem", show: showStatus },
  members: { problem: "members-problem", show: ({ data }) => showPlaces({ members: data }) },
  shards: { problem: "shards-problem", show: ({ data }) => showPlaces({ shards: data }) },
  violations: { problem: "violations-problem", none: "violations-none", show: showViolations },
  metrics: { problem: "traffic-problem", show: showMetrics },
  tasks: { problem: "tasks-problem", none: "tasks-none", show: showTasks, isList: true },
  letters: { problem: "letters-problem", none: "letters-none", show: showLetters, isList: true },
};

async function tick(withLists) {
  clearTimeout(state.timer);
  const lists = withLists || state.ticks % LIST_TICKS === 0;
  const token = sessionStorage.getItem(TOKEN);
  state.ticks += 1;
  const parts = Object.keys(PARTS).filter((name) => lists || !PARTS[name].isList);
  const errors = (await Promise.all(parts.map(refresh))).filter((error) => error !== null);
  const needsToken = errors.some((error) => error instanceof Refused && error.status === 401);
  const answered = errors.length < parts.length || errors.some((error) => !(error instanceof Unanswered));
  // Another one may have been given meanwhile.
  const isAsking = needsToken && sessionStorage.getItem(TOKEN) === token;
  if (isAsking) {
    askForToken();
  } else if (needsToken) {
    // The next answers will tell.
  } else if (answered) {
    say("state", state.paused ? "Paused" : "Connected", "good");
    say("updated", `as of ${new Date().toLocaleTimeString()}`);
  } else {
    say("state", "The node does not answer", "bad");
  }
  clearTimeout(state.timer);
  if (!state.paused && !isAsking && !document.hidden) state.timer = setTimeout(tick, PERIOD_MS);
}

/** Brings one part up to date; answers what went wrong, if anything did. */
async function refresh(name) {
  const { problem, none, show, isList } = PARTS[name];
  let [error, isEmpty] = [null, false];
  try {
    const answer = await call(ROUTES[name], { query: isList ? `?limit=${LIST_LIMIT}` : "" });
    show(answer);
    isEmpty = answer.data?.length === 0;
  } catch (caught) {
    error = caught;
  }
  // That a token is needed is said once, and not by each part.
  say(problem, error === null || error.status === 401 ? "" : error.message);
  if (none !== undefined) document.getElementById(none).hidden = !isEmpty;
  return error;
}

// ---- the parts

function showStatus(node) {
  const unowned = node.shards_without_owner;
  say("name", node.name);
  document.title = `${node.name}: Quorate console`;
  describe(of("node"), [
    ["Phase", node.phase, node.phase === "ready" ? "good" : "bad"],
    ["Shards owned here", node.shards_owned],
    ["Shards without an owner", unowned.length === 0 ? "none" : unowned.join(", "), unowned.length === 0 ? "" : "bad"],
    ["Broken invariants", node.violations === 0 ? "none found" : `${node.violations} found`, node.violations === 0 ? "" : "bad"],
    ["Up for", duration(node.uptime_ms / 1000)],
    ["Version", node.version],
    ["Cluster", node.cluster ?? "none yet"],
  ]);
}

/** Each of the two tables has something of the other. */
function showPlaces(news) {
  Object.assign(state, news);
  showMembers();
  showShards();
}

function showMembers() {
  const owned = (node) => state.shards.filter((shard) => shard.owner === node).length;
  fill(of("members"), state.members, (member) => member.node, (member) => [
    [`${member.name} (${member.node})`],
    [member.gossip, member.gossip === "alive" ? "good" : "bad"],
    member.is_self ? ["this node"] : member.linked ? ["up", "good"] : ["DOWN", "bad"],
    [member.http],
    [member.address],
    [member.zone],
    [owned(member.node), "number"],
  ]);
}

function showShards() {
  fill(of("shards"), state.shards, (shard) => shard.shard, (shard) => {
    // A new replica is filled before it votes.
    const isFilling = (node) => shard.voters.length > 0 && !shard.voters.includes(node);
    const shown = (node) => nameOf(node) + (isFilling(node) ? " (filling)" : "");
    const behind = shard.applied_index === null ? null : shard.last_log_index - shard.applied_index;
    return [
      [shard.shard, "number"],
      shard.owner === null ? ["NONE", "bad"] : [nameOf(shard.owner)],
      [shard.replicas.map(shown).join(", ")],
      [shard.term, "number"],
      [shard.applied_index, "number"],
      [behind, "number"],
      [shard.outbox, "number"],
      [shard.active_entities, "number"],
    ];
  });
}

function showTasks({ data }) {
  fill(of("tasks"), data, (task) => task.id, (task) => [
    [task.id],
    [task.handler],
    [entity(task.entity)],
    [task.state],
    [`${task.attempts} of ${task.attempts_max}`],
    [time(task.next_attempt_at)],
    [task.last_error],
  ]);
}

function showLetters({ data }) {
  fill(of("letters"), data, (letter) => letter.id, (letter) => [
    [letter.id],
    [letter.kind === "task" ? `task ${letter.handler}, after ${letter.attempts} attempts` : `tell to ${entity(letter.to)}`],
    [entity(letter.entity)],
    [time(letter.given_up_at)],
    [letter.error],
  ], (letter) => [
    action("Retry", letter.id, () => resolve("retry", letter.id, "is on its way again")),
    action("Discard", letter.id, () => {
      const isMeant = confirm(`Forget ${letter.id} for good? What it was to do is not done then.`);
      return isMeant ? resolve("discard", letter.id, "is gone") : null;
    }),
  ]);
}

function showViolations({ data }) {
  const key = (found) => [found.invariant, found.shard, entity(found.entity), found.peer, found.index].join();
  fill(of("violations"), data, key, (found) => [
    [found.invariant, "bad"],
    [found.shard, "number"],
    [found.entity === null ? null : entity(found.entity)],
    [time(found.found_at)],
    [found.detail],
  ]);
}

// ---- dead letters

async function resolve(what, id, done) {
  // The same key until there is an answer: a click after a lost one is the same request again.
  const name = `${what} ${id}`;
  const key = state.keys.get(name) ?? randomKey();
  state.keys.set(name, key);
  say("message", `${name} …`);
  try {
    await call(ROUTES[what], { id, headers: { "idempotency-key": key } });
    state.keys.delete(name);
    say("message", `${id} ${done}`, "good");
    // Its button goes with it.
    of("letters-heading").focus();
  } catch (error) {
    if (error instanceof Refused && error.status < 500) state.keys.delete(name);
    const isOpen = error instanceof Unanswered || error.status >= 500;
    const advice = isOpen ? ". It may have been done; the same button asks again, safely" : "";
    say("message", `${name}: ${error.message}${advice}`, "bad");
  }
  await tick(true);
}

/** `crypto.randomUUID` is not there without TLS. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return "console-" + Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function action(name, id, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.setAttribute("aria-label", `${name} ${id}`);
  button.addEventListener("click", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    // Not `disabled`, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    await act();
    button.setAttribute("aria-disabled", "false");
  });
  return button;
}

// ---- metrics

function showMetrics(text) {
  const samples = parse(text);
  const now = { at: performance.now() / 1000, ...totals(samples) };
  const before = state.before;
  state.before = now;
  showQueues(samples);
  // Counters begin anew when the node does.
  if (before === null || now.requests < before.requests || now.cpu < before.cpu) return;
  const seconds = now.at - before.at;
  const rate = (name) => (now[name] - before[name]) / seconds;
  const buckets = now.buckets.map(([bound, count], at) => [bound, count - (before.buckets[at]?.[1] ?? 0)]);
  state.rates = [...state.rates, rate("requests")].slice(-RATES_KEPT);
  const failed = rate("failed");
  describe(of("traffic"), [
    ["Shop requests", `${figure(rate("requests"))}/s`],
    ["Answered 5xx", `${figure(failed)}/s`, failed > 0 ? "bad" : ""],
    ["Median latency", latency(buckets, 0.5)],
    ["99th percentile", latency(buckets, 0.99)],
    ["Commands", `${figure(rate("commands"))}/s`],
    ["Effects waiting", figure(now.outbox)],
    ["Processor", `${figure(100 * rate("cpu"))} % of a core`],
    ["Memory", `${figure(now.memory / 1048576)} MiB`],
  ]);
  draw(state.rates);
}

function showQueues(samples) {
  const columns = ["quorate_task_queue_depth", "quorate_tasks_running", "quorate_tasks_total", "quorate_task_retries_total"];
  const handlers = new Map();
  for (const { name, labels, value } of samples) {
    const column = columns.indexOf(name);
    if (column < 0) continue;
    const row = handlers.get(labels.handler) ?? [0, 0, 0, 0];
    row[column] += value;
    handlers.set(labels.handler, row);
  }
  of("queues-none").hidden = handlers.size > 0;
  const rows = [...handlers].sort(([a], [b]) => a.localeCompare(b));
  fill(of("queues"), rows, ([name]) => name, ([name, row]) => [[name], ...row.map((count) => [count, "number"])]);
}

/** The samples of a text in the format of Prometheus. */
function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (found === null) continue;
    const labels = {};
    for (const [, name, value] of (found[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) labels[name] = value;
    samples.push({ name: found[1], labels, value: Number(found[3]) });
  }
  return samples;
}

function totals(samples) {
  const all = { requests: 0, failed: 0, commands: 0, outbox: 0, cpu: 0, memory: 0 };
  const buckets = new Map();
  for (const { name, labels, value } of samples) {
    const isShop = (labels.route ?? "").startsWith(SHOP);
    if (name === "quorate_http_requests_total" && isShop) {
      all.requests += value;
      if (labels.status.startsWith("5")) all.failed += value;
    } else if (name === "quorate_http_request_seconds_bucket" && isShop) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      buckets.set(bound, (buckets.get(bound) ?? 0) + value);
    } else if (name === "quorate_commands_total") all.commands += value;
    else if (name === "quorate_outbox_pending") all.outbox += value;
    else if (name === "process_cpu_seconds_total") all.cpu += value;
    else if (name === "process_resident_memory_bytes") all.memory += value;
  }
  return { ...all, buckets: [...buckets].sort(([a], [b]) => a - b) };
}

/** The bucket in which a quantile lies: no more is known. */
function latency(buckets, quantile) {
  const count = buckets.length === 0 ? 0 : buckets[buckets.length - 1][1];
  if (count === 0) return "no requests";
  const at = buckets.findIndex(([, upTo]) => upTo >= quantile * count);
  const bound = buckets[at][0];
  if (bound === Infinity) return `above ${milliseconds(buckets[at - 1]?.[0] ?? 0)}`;
  return `up to ${milliseconds(bound)}`;
}

const milliseconds = (seconds) => `${Number((1000 * seconds).toPrecision(3))} ms`;

function draw(rates) {
  const most = Math.max(...rates);
  const step = 240 / (RATES_KEPT - 1);
  const from = RATES_KEPT - rates.length;
  const point = (rate, at) => `${((from + at) * step).toFixed(1)},${(38 - (36 * rate) / Math.max(1, most)).toFixed(1)}`;
  of("line").setAttribute("points", rates.map(point).join(" "));
  say("rates-title", `Requests per second to the shop in the last two minutes: ${figure(rates[rates.length - 1])} now, ${figure(most)} at most`);
}

// ---- writing

/** Rows are kept as long as what they show is there, so that nobody loses his place. */
function fill(table, items, keyOf, cellsOf, actionsOf = null) {
  const body = table.tBodies[0];
  const keys = new Set(items.map((item) => String(keyOf(item))));
  for (const row of [...body.rows]) if (!keys.has(row.dataset.key)) row.remove();
  const present = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, at) => {
    const key = String(keyOf(item));
    const row = present.get(key) ?? newRow(key, item, cellsOf(item).length, actionsOf);
    cellsOf(item).forEach(([value, style = ""], column) => write(row.cells[column], value, style));
    if (body.rows[at] !== row) body.insertBefore(row, body.rows[at] ?? null);
  });
}

function newRow(key, item, cells, actionsOf) {
  const row = document.createElement("tr");
  row.dataset.key = key;
  const heading = document.createElement("th");
  heading.scope = "row";
  row.append(heading);
  for (let cell = 1; cell < cells; cell += 1) row.append(document.createElement("td"));
  if (actionsOf !== null) {
    const cell = document.createElement("td");
    cell.append(...actionsOf(item));
    row.append(cell);
  }
  return row;
}

/** A list of what is called how. */
function describe(list, entries) {
  entries.forEach(([term, value, style = ""], at) => {
    let entry = list.children[at];
    if (entry === undefined) {
      entry = document.createElement("div");
      entry.append(document.createElement("dt"), document.createElement("dd"));
      list.append(entry);
    }
    write(entry.children[0], term, "");
    write(entry.children[1], value, style);
  });
}

function say(id, text, style = null) {
  write(document.getElementById(id), text, style);
}

/** Touches nothing that is as it should be: else readers would say it again. */
function write(element, value, style) {
  const text = value === null || value === undefined ? "–" : String(value);
  if (element.textContent !== text) element.textContent = text;
  if (style !== null && element.getAttribute("class") !== style) element.setAttribute("class", style);
}

const nameOf = (node) => state.members.find((member) => member.node === node)?.name ?? `node ${node}`;
const entity = (key) => (key === null ? "" : `${key.entity_type} ${key.id}`);
const time = (text) => (text === null ? null : new Date(text).toLocaleString());
const figure = (number) => (number >= 100 ? Math.round(number).toString() : Number(number.toPrecision(3)).toString());

function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86400, (seconds % 86400) / 3600, (seconds % 3600) / 60].map(Math.floor);
  if (days > 0) return `${days} d ${hours} h`;
  return hours > 0 ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

// ---- the operator

function askForToken() {
  const wasSent = sessionStorage.getItem(TOKEN) !== null;
  sessionStorage.removeItem(TOKEN);
  of("forget").hidden = true;
  say("state", wasSent ? "The node does not know this token" : "A token is needed", "bad");
  if (of("login").hidden) {
    of("login").hidden = false;
    of("token").focus();
  }
}

of("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, of("token").value.trim());
  of("token").value = "";
  of("login").hidden = true;
  of("forget").hidden = false;
  tick(true);
});

of("forget").addEventListener("click", () => {
  sessionStorage.removeItem(TOKEN);
  // What is on the page was for its holder.
  location.reload();
});

of("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  of("pause").setAttribute("aria-pressed", String(state.paused));
  if (state.paused) {
    clearTimeout(state.timer);
    say("state", "Paused", "good");
  } else {
    tick(true);
  }
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !state.paused) tick(true);
});

of("forget").hidden = sessionStorage.getItem(TOKEN) === null;
tick(true);

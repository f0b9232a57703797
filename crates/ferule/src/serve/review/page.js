// The review page: shows an item, takes a verdict by keyboard, and has the next one ready.
//
// Whatever a client asked and a model answered is set as text, never as markup. Characters that cannot be seen, or that turn the direction of text, are shown by their code.
"use strict";

const words = {
  en: {
    review: "review", logout: "sign out", token: "Your personal token", signIn: "Sign in", loginHelp: "An operator makes one with: ferule person add NAME",
    asked: "Asked", answered: "Answered", correction: "What should have been answered", verdict: "Your verdict", accept: "accept", correct: "correct",
    reject: "reject", skip: "skip", undo: "take back", before: "The one before", empty: "Nothing waits for you.",
    keys: "A accept · C correct (Ctrl+Enter signs, Escape leaves) · R reject · S skip · U take the last one back",
    waiting: (n) => `${n} waiting`, reasons: { gate: "drawn at random", thumb_down: "the client did not like it", unsure: "the model may be unsure", traffic: "from the traffic" },
    roles: { system: "instructions", user: "user", assistant: "assistant" },
    model: "model", confidence: "confidence", thumb: "client", client_correction: "client's correction", client_reason: "client's reason", mine: "your verdict",
  },
  zh: {
    review: "复核", logout: "退出", token: "个人令牌", signIn: "登录", loginHelp: "令牌由管理员生成：ferule person add NAME",
    asked: "提问", answered: "回答", correction: "正确的回答", verdict: "您的判断", accept: "通过", correct: "更正", reject: "驳回", skip: "跳过", undo: "撤回",
    before: "上一条", empty: "没有待复核的条目。", keys: "A 通过 · C 更正（Ctrl+Enter 提交，Esc 取消）· R 驳回 · S 跳过 · U 撤回上一条",
    waiting: (n) => `待复核 ${n} 条`, reasons: { gate: "随机抽取", thumb_down: "用户不满意", unsure: "模型可能没有把握", traffic: "来自日常请求" },
    roles: { system: "指令", user: "用户", assistant: "模型" },
    model: "模型", confidence: "置信度", thumb: "用户评价", client_correction: "用户的更正", client_reason: "用户的理由", mine: "您的判断",
  },
};
const language = navigator.language.startsWith("zh") ? "zh" : "en";
const say = words[language];
const $ = (id) => document.getElementById(id);
const state = { csrf: "", items: [], last: null, busy: false, shownAt: 0, seconds: 0 };

document.documentElement.lang = language;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = say[element.dataset.text];

// Controls, marks of direction and characters without width; line ends and tabs are left alone.
const unseen = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/u;

function setText(element, text) {
  element.textContent = "";
  let plain = "";
  for (const character of text) {
    if (unseen.test(character)) {
      element.append(plain);
      plain = "";
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.textContent = "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      element.append(mark);
    } else {
      plain += character;
    }
  }
  element.append(plain);
}

async function call(method, path, body) {
  const headers = { "x-ferule-csrf": state.csrf };
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error.message), { status: response.status });
  return answer;
}

function complain(error) {
  $("problem").textContent = error ? error.message : "";
}

function signedIn(session) {
  state.csrf = session.csrf;
  $("person").textContent = session.person;
  $("who").hidden = false;
  $("login").hidden = true;
  return fill().then(show);
}

function signedOut() {
  state.csrf = "";
  state.items = [];
  for (const id of ["who", "item", "empty", "last"]) $(id).hidden = true;
  $("progress").textContent = "";
  $("login").hidden = false;
  $("token").value = "";
  $("token").focus();
}

// Two items are held, so that the next one is there at once.
async function fill() {
  const held = state.items.map((item) => item.item).join(",");
  const answer = await call("GET", "/review/next?skip=" + encodeURIComponent(held));
  const known = new Set(state.items.map((item) => item.item));
  for (const item of answer.items) if (!known.has(item.item) && state.items.length < 2) state.items.push(item);
  $("progress").textContent = say.waiting(answer.waiting);
}

function show() {
  const item = state.items[0];
  $("item").hidden = !item;
  $("empty").hidden = Boolean(item);
  closeEditor();
  if (!item) return;
  $("reason").textContent = say.reasons[item.reason] || item.reason;
  const asked = $("asked");
  asked.textContent = "";
  for (const message of item.messages) {
    if (item.messages.length > 1) {
      const role = document.createElement("p");
      role.className = "role";
      role.textContent = say.roles[message.role] || message.role;
      asked.append(role);
    }
    const text = document.createElement("bdi");
    text.className = "text";
    text.dir = "auto";
    setText(text, message.content);
    asked.append(text);
  }
  setText($("answered"), item.completion);
  state.seconds = 0;
  state.shownAt = performance.now();
}

// Time in which the tab cannot be seen is not counted.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) state.seconds += (performance.now() - state.shownAt) / 1000;
  else state.shownAt = performance.now();
});

async function decide(decision, correction) {
  const item = state.items[0];
  if (!item || state.busy) return;
  state.busy = true;
  complain();
  const seconds = state.seconds + (performance.now() - state.shownAt) / 1000;
  try {
    const answer = await call("POST", "/review/verdict", { item: item.item, decision, correction, seconds });
    state.items.shift();
    state.last = answer.verdict;
    tell(decision, answer.behind || {});
    show();
    await fill();
    if (state.items.length && $("item").hidden) show();
  } catch (error) {
    complain(error);
    if (error.status === 403) signedOut();
    if (error.status === 409) {
      // Somebody else was faster.
      state.items.shift();
      await fill();
      show();
    }
  } finally {
    state.busy = false;
  }
}

// What the verdict was blind to.
function tell(decision, behind) {
  const list = $("behind");
  list.textContent = "";
  const add = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    setText(text, String(value));
    list.append(term, text);
  };
  add(say.mine, say[decision]);
  add(say.model, behind.model && behind.model.slice(0, 16));
  add(say.confidence, behind.confidence === null || behind.confidence === undefined ? "" : (100 * behind.confidence).toFixed(1) + " %");
  add(say.thumb, { up: "👍", down: "👎" }[behind.thumb]);
  add(say.client_correction, behind.client_correction);
  add(say.client_reason, behind.client_reason);
  $("last").hidden = false;
}

async function undo() {
  if (state.last === null || state.busy) return;
  state.busy = true;
  complain();
  try {
    await call("POST", "/review/revoke", { verdict: state.last });
    state.last = null;
    $("last").hidden = true;
    state.items = [];
    await fill();
    show();
  } catch (error) {
    complain(error);
  } finally {
    state.busy = false;
  }
}

function openEditor() {
  $("editor").hidden = false;
  $("correction").value = state.items[0].completion;
  $("correction").focus();
  $("correction").select();
}

function closeEditor() {
  $("editor").hidden = true;
  $("correction").value = "";
}

function choose(decision) {
  if (!state.items.length) return;
  if (decision !== "correct") return decide(decision);
  if ($("editor").hidden) return openEditor();
  const text = $("correction").value.trim();
  if (text) decide("correct", text);
}

document.addEventListener("keydown", (event) => {
  if (!$("editor").hidden && event.target === $("correction")) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      choose("correct");
    } else if (event.key === "Escape") {
      closeEditor();
    }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement || $("item").hidden && event.key !== "u") return;
  const decision = { a: "accept", c: "correct", r: "reject", s: "skip" }[event.key.toLowerCase()];
  if (decision) {
    event.preventDefault();
    choose(decision);
  } else if (event.key.toLowerCase() === "u") {
    undo();
  }
});

for (const button of document.querySelectorAll("[data-decision]")) button.addEventListener("click", () => choose(button.dataset.decision));
$("undo").addEventListener("click", undo);
$("logout").addEventListener("click", () => call("POST", "/review/logout").then(signedOut, complain));
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  complain();
  call("POST", "/review/login", { token: $("token").value }).then(signedIn).catch(complain);
});

call("GET", "/review/session").then(signedIn).catch(signedOut);

// The review page: shows an item, takes a verdict by keyboard, and has the next one ready.
//
// Whatever a client asked and a model answered is set as text, never as markup. Characters that cannot be seen, or that turn the direction of text, are shown by their code.
"use strict";

const words = {
  en: {
    review: "review", logout: "Sign out", token: "Your personal token", signIn: "Sign in", loginHelp: "An operator makes one with: ferule person add NAME",
    asked: "Asked", answered: "Answered", correction: "What should have been answered", verdict: "Your verdict", accept: "Accept", correct: "Correct",
    reject: "Reject", skip: "Skip", undo: "Take back", nobody: "This is nobody's token.", again: "Sign in again.", before: "Your last verdict", empty: "Nothing waits for you.", sign: "signs", leave: "leaves",
    help: "Keys", close: "Close", acceptHelp: "The answer is right as it is.", correctHelp: "It is wrong, and you write what is right. Ctrl+Enter signs, Esc leaves.",
    rejectHelp: "It is wrong.", skipHelp: "You cannot tell. Others still see it.", undoHelp: "Take your last verdict back.", helpHelp: "This list.",
    blind: "Which model answered and how sure it was is shown after your verdict.", leftOut: (n) => `Characters that cannot be seen were left out here: ${n}.`,
    waiting: (n) => `${n} waiting`, reasons: { gate: "drawn at random", thumb_down: "the client did not like it", unsure: "the model may be unsure", traffic: "from the traffic" },
    roles: { system: "instructions", user: "user", assistant: "assistant" }, up: "liked it", down: "did not like it",
    model: "Model", confidence: "Confidence", thumb: "Client", client_correction: "Client's correction", client_reason: "Client's reason", found_label: "Found in your data", mine: "You",
  },
  zh: {
    review: "复核", logout: "退出", token: "个人令牌", signIn: "登录", loginHelp: "令牌由管理员生成：ferule person add NAME",
    asked: "提问", answered: "回答", correction: "正确的回答", verdict: "您的判断", accept: "通过", correct: "更正", reject: "驳回", skip: "跳过", undo: "撤回",
    nobody: "令牌无效。", again: "请重新登录。", before: "您的上一个判断", empty: "没有待复核的条目。", sign: "提交", leave: "取消", help: "快捷键", close: "关闭",
    acceptHelp: "回答正确，无需修改。", correctHelp: "回答有误，由您写出正确的回答。Ctrl+Enter 提交，Esc 取消。", rejectHelp: "回答有误。",
    skipHelp: "无法判断；其他人仍会看到。", undoHelp: "撤回上一个判断。", helpHelp: "显示本列表。", blind: "判断之后才会显示由哪个模型回答以及它的置信度。",
    leftOut: (n) => `此处已略去 ${n} 个不可见字符。`,
    waiting: (n) => `待复核 ${n} 条`, reasons: { gate: "随机抽取", thumb_down: "用户不满意", unsure: "模型可能没有把握", traffic: "来自日常请求" },
    roles: { system: "指令", user: "用户", assistant: "模型" }, up: "满意", down: "不满意",
    model: "模型", confidence: "置信度", thumb: "用户评价", client_correction: "用户的更正", client_reason: "用户的理由", found_label: "您的数据中的答案", mine: "您",
  },
};
// A key that is pressed twice by accident must not judge an item that nobody has seen.
const LEAST_SECONDS = 0.25;
const language = navigator.language.startsWith("zh") ? "zh" : "en";
const say = words[language];
const $ = (id) => document.getElementById(id);
const state = { csrf: "", items: [], judged: new Set(), last: null, busy: false, shownAt: 0, seconds: 0 };

document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
document.title = `Ferule · ${say.review}`;
for (const element of document.querySelectorAll("[data-text]")) element.textContent = say[element.dataset.text];

// Controls, marks of direction and characters without width; line ends and tabs are left alone.
const unseen = /[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2028\u2029]/u;
// Within an emoji two of them have their place.
const emoji = /[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f]/u;

function isUnseen(character, before) {
  if (character === "\n" || character === "\t" || character === "\r") return false;
  if ((character === "\ufe0f" || character === "\u200d") && emoji.test(before)) return false;
  return unseen.test(character);
}

function setText(element, text) {
  element.textContent = "";
  let plain = "";
  let before = "";
  for (const character of text) {
    if (isUnseen(character, before)) {
      element.append(plain);
      plain = "";
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.textContent = "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
      element.append(mark);
    } else {
      plain += character;
    }
    before = character;
  }
  element.append(plain);
}

// A correction begins as the answer, without what could be signed unseen.
function withoutUnseen(text) {
  const characters = [...text];
  return characters.filter((character, place) => !isUnseen(character, characters[place - 1] || "")).join("");
}

async function call(method, path, body) {
  const headers = { "x-ferule-csrf": state.csrf };
  if (body) headers["content-type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.error ? answer.error.message : `HTTP ${response.status}`), { status: response.status });
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
  state.last = null;
  state.judged.clear();
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
  for (const item of answer.items) if (!known.has(item.item) && !state.judged.has(item.item) && state.items.length < 2) state.items.push(item);
  $("progress").textContent = say.waiting(answer.waiting);
}

function show() {
  const item = state.items[0];
  $("item").hidden = !item;
  $("empty").hidden = Boolean(item);
  closeEditor();
  window.scrollTo(0, 0);
  if (!item) return $("empty").focus();
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
  $("item").focus({ preventScroll: true });
  state.seconds = 0;
  state.shownAt = performance.now();
}

function secondsShown() {
  return state.seconds + (document.hidden ? 0 : (performance.now() - state.shownAt) / 1000);
}

// Time in which the tab cannot be seen is not counted.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) state.seconds += (performance.now() - state.shownAt) / 1000;
  else state.shownAt = performance.now();
});

async function decide(decision, correction) {
  const item = state.items[0];
  const seconds = secondsShown();
  if (!item || state.busy || seconds < LEAST_SECONDS) return;
  state.busy = true;
  complain();
  try {
    const answer = await call("POST", "/review/verdict", { item: item.item, request: item.request, decision, correction, seconds });
    state.items.shift();
    state.last = { verdict: answer.verdict, item };
    state.judged.add(item.item);
    tell(decision, correction, answer.behind || {});
    show();
    state.busy = false;
    await fill();
    if (state.items.length && $("item").hidden) show();
  } catch (error) {
    complain(error);
    if (error.status === 403) {
      signedOut();
      complain(new Error(say.again));
    }
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
function tell(decision, correction, behind) {
  const list = $("behind");
  list.textContent = "";
  const add = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.dir = "auto";
    setText(text, String(value));
    list.append(term, text);
  };
  add(say.mine, correction ? `${say[decision]}: ${correction}` : say[decision]);
  // A digest is told by its beginning; the name of an upstream's model is not.
  add(say.model, /^[0-9a-f]{64}$/.test(behind.model) ? behind.model.slice(0, 16) : behind.model);
  add(say.confidence, behind.confidence === null || behind.confidence === undefined ? "" : (100 * behind.confidence).toFixed(1) + " %");
  add(say.thumb, say[behind.thumb]);
  add(say.client_correction, behind.client_correction);
  add(say.client_reason, behind.client_reason);
  add(say.found_label, behind.found_label);
  $("last").hidden = false;
}

async function undo() {
  if (!state.last || state.busy) return;
  state.busy = true;
  complain();
  try {
    await call("POST", "/review/revoke", { verdict: state.last.verdict });
    state.judged.delete(state.last.item.item);
    state.items = [state.last.item, ...state.items].slice(0, 2);
    state.last = null;
    $("last").hidden = true;
    show();
    await fill();
  } catch (error) {
    complain(error);
  } finally {
    state.busy = false;
  }
}

function openEditor() {
  const text = withoutUnseen(state.items[0].completion);
  const leftOut = [...state.items[0].completion].length - [...text].length;
  $("editor").hidden = false;
  $("left-out").textContent = leftOut ? say.leftOut(leftOut) : "";
  document.querySelector("[data-decision=correct]").setAttribute("aria-pressed", "true");
  $("correction").value = text;
  $("correction").focus();
  $("correction").select();
}

function closeEditor() {
  const inside = document.activeElement === $("correction");
  $("editor").hidden = true;
  $("correction").value = "";
  document.querySelector("[data-decision=correct]").setAttribute("aria-pressed", "false");
  if (inside) $("item").focus({ preventScroll: true });
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
  const elsewhere = $("who").hidden || $("help").open || event.target instanceof HTMLInputElement;
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing || elsewhere) return;
  const decision = { a: "accept", c: "correct", r: "reject", s: "skip" }[event.key.toLowerCase()];
  if (decision) {
    event.preventDefault();
    choose(decision);
  } else if (event.key.toLowerCase() === "u") {
    undo();
  } else if (event.key === "?") {
    $("help").showModal();
  }
});

for (const button of document.querySelectorAll("[data-decision]")) button.addEventListener("click", () => choose(button.dataset.decision));
$("undo").addEventListener("click", undo);
$("help-button").addEventListener("click", () => $("help").showModal());
$("logout").addEventListener("click", () => call("POST", "/review/logout").then(signedOut, complain));
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  complain();
  call("POST", "/review/login", { token: $("token").value }).then(signedIn).catch((error) => {
    complain(error.status === 403 ? new Error(say.nobody) : error);
    $("token").select();
  });
});

call("GET", "/review/session").then(signedIn).catch(signedOut);

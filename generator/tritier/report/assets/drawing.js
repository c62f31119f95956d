/* Zoom, search and details of the drawings with class tt-zoom. Nothing is left in the global scope,
   nothing is loaded, and all text is set as text. */
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const FAR = 0.42;
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const make = (tag, text, kind) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const makeSvg = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  /* What part of the drawing is seen: its middle (x, y), and k, pixels per unit. */
  function camera(frame, svg, seen) {
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const view = { x: width / 2, y: 0, k: 1 };
    let asked = false;
    let moving = 0;
    const size = () => [frame.clientWidth || 1, frame.clientHeight || 1];
    const whole = () => Math.min(size()[0] / width, size()[1] / height);
    function keepInside() {
      const [w, h] = size();
      view.k = clamp(view.k, Math.min(whole() * 0.9, 1), 3);
      const inside = (at, total, pixels) =>
        clamp(at, (-0.3 * pixels) / view.k, total + (0.3 * pixels) / view.k);
      view.x = inside(view.x, width, w);
      view.y = inside(view.y, height, h);
    }
    function paint() {
      asked = false;
      keepInside();
      const [w, h] = size().map((pixels) => pixels / view.k);
      const corner = [view.x - w / 2, view.y - h / 2];
      svg.setAttribute("viewBox", `${corner[0]} ${corner[1]} ${w} ${h}`);
      svg.classList.toggle("tt-far", view.k < FAR);
      seen(corner[0], corner[1], w, h);
    }
    function show() {
      if (!asked) requestAnimationFrame(paint);
      asked = true;
    }
    const stop = () => cancelAnimationFrame(moving);
    function set(x, y, k) {
      stop();
      Object.assign(view, { x, y, k });
      show();
    }
    function glide(x, y, k) {
      stop();
      const screens = Math.hypot(x - view.x, y - view.y) * view.k / Math.hypot(...size());
      if (calm.matches || screens > 2 || view.k < FAR) return set(x, y, k);
      const from = { ...view };
      const start = performance.now();
      const step = (now) => {
        const part = clamp((now - start) / 220, 0, 1);
        const eased = part * (2 - part);
        view.x = from.x + (x - from.x) * eased;
        view.y = from.y + (y - from.y) * eased;
        view.k = from.k + (k - from.k) * eased;
        show();
        if (part < 1) moving = requestAnimationFrame(step);
      };
      moving = requestAnimationFrame(step);
    }
    function zoom(factor, clientX, clientY) {
      stop();
      const box = frame.getBoundingClientRect();
      const dx = clientX === undefined ? 0 : clientX - box.left - box.width / 2;
      const dy = clientY === undefined ? 0 : clientY - box.top - box.height / 2;
      const before = view.k;
      view.k = clamp(view.k * factor, Math.min(whole() * 0.9, 1), 3);
      view.x += dx / before - dx / view.k;
      view.y += dy / before - dy / view.k;
      show();
    }
    const move = (dx, dy) => set(view.x + dx / view.k, view.y + dy / view.k, view.k);
    new ResizeObserver(show).observe(frame);
    return { view, width, height, size, whole, set, glide, zoom, move, paint };
  }

  function overviewOf(place, svg, width, height) {
    const small = makeSvg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none" });
    for (const line of svg.querySelectorAll(".tt-cross path")) {
      small.append(makeSvg("path", { d: line.getAttribute("d"), class: line.getAttribute("class") }));
    }
    for (const box of svg.querySelectorAll(".tt-node rect.tt-box")) {
      const role = [...box.classList].find((name) => name.startsWith("tt-k-"));
      small.append(makeSvg("rect", {
        x: box.getAttribute("x"), y: Number(box.getAttribute("y")) - 12,
        width: box.getAttribute("width"), height: Number(box.getAttribute("height")) + 24,
        class: role.replace("tt-k-", "tt-f-"),
      }));
    }
    const frame = makeSvg("rect", { class: "tt-window" });
    small.append(frame);
    place.append(small);
    return (x, y, w, h) => {
      const left = clamp(x, 0, width), top = clamp(y, 0, height);
      frame.setAttribute("x", left);
      frame.setAttribute("y", top);
      frame.setAttribute("width", Math.max(Math.min(x + w, width) - left, 1));
      frame.setAttribute("height", Math.max(Math.min(y + h, height) - top, height / 120));
    };
  }

  function start(figure) {
    const frame = figure.querySelector(".tt-frame");
    const svg = frame.querySelector("svg.tt-svg");
    const bar = figure.querySelector(".tt-bar");
    const field = bar.querySelector("input");
    const found = bar.querySelector(".tt-found");
    const overview = figure.querySelector(".tt-overview");
    const details = figure.querySelector(".tt-details");
    const table = figure.querySelector(".tt-table table");
    const columns = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].map((row) =>
      [...row.cells].map((cell) => cell.textContent));
    const texts = rows.map((row) => row.join(" ").toLowerCase());
    const nodes = [];
    for (const node of svg.querySelectorAll(".tt-node")) nodes[Number(node.dataset.row)] = node;
    const edges = [...svg.querySelectorAll(".tt-edge")].map((element) => ({
      element, from: Number(element.dataset.from), to: Number(element.dataset.to),
    }));
    let chosen = -1;
    let hits = [];
    let showWindow = () => {};
    const eye = camera(frame, svg, (...seen) => showWindow(...seen));
    showWindow = overviewOf(overview, svg, eye.width, eye.height);

    const boxOf = (row) => nodes[row].querySelector(".tt-box").getBBox();
    function goTo(row) {
      const box = boxOf(row);
      const k = Math.max(eye.view.k, 0.9);
      let [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
      if (!details.hidden) { // the middle of what the details leave free
        if (details.offsetWidth < 0.6 * eye.size()[0]) x -= details.offsetWidth / 2 / k;
        else y += details.offsetHeight / 2 / k;
      }
      eye.glide(x, y, k);
    }
    function readable() {
      const box = boxOf(0);
      const k = clamp(eye.size()[0] / eye.width, 0.9, 1.15);
      eye.set(box.x + box.width / 2, eye.size()[1] / k / 2, k);
    }
    const whole = () => eye.glide(eye.width / 2, eye.height / 2, eye.whole());

    function neighbours(title, list) {
      if (!list.length) return;
      details.append(make("h5", title));
      const made = make("ul");
      for (const row of list) {
        const item = make("li");
        const button = make("button", `${rows[row][0]} · ${rows[row][2]}`);
        button.type = "button";
        button.addEventListener("click", () => choose(row));
        item.append(button);
        made.append(item);
      }
      details.append(made);
    }
    function choose(row) {
      for (const element of svg.querySelectorAll(".tt-chosen, .tt-near")) {
        element.classList.remove("tt-chosen", "tt-near");
      }
      const hadFocus = details.contains(document.activeElement);
      details.replaceChildren();
      chosen = row;
      details.hidden = row < 0;
      if (row < 0) {
        if (hadFocus) frame.focus();
        return;
      }
      nodes[row].classList.add("tt-chosen");
      const near = edges.filter((edge) => edge.from === row || edge.to === row);
      for (const edge of near) edge.element.classList.add("tt-near");
      const close = make("button", "×", "tt-close");
      close.type = "button";
      close.setAttribute("aria-label", "Close details");
      close.addEventListener("click", () => choose(-1));
      const list = make("dl");
      rows[row].forEach((text, column) => {
        if (column && text) list.append(make("dt", columns[column]), make("dd", text));
      });
      details.append(close, make("h4", rows[row][0]), list);
      neighbours("Reads from", near.filter((edge) => edge.to === row).map((edge) => edge.from));
      neighbours("Read by", near.filter((edge) => edge.from === row).map((edge) => edge.to));
      if (hadFocus) close.focus();
      goTo(row);
    }

    function search() {
      const wanted = field.value.trim().toLowerCase();
      hits = [];
      nodes.forEach((node, row) => {
        const hit = wanted !== "" && texts[row].includes(wanted);
        node.classList.toggle("tt-hit", hit);
        if (hit) hits.push(row);
      });
      svg.classList.toggle("tt-searching", wanted !== "");
      found.textContent = wanted === "" ? "" : `${hits.length} found`;
      if (hits.length) goTo(hits[0]);
    }
    function nextHit(step) {
      if (!hits.length) return;
      const at = hits.indexOf(chosen);
      const next = at < 0 ? 0 : (at + step + hits.length) % hits.length;
      choose(hits[next]);
      found.textContent = `${next + 1} of ${hits.length}`;
    }

    field.addEventListener("input", search);
    field.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") {
        event.preventDefault();
        nextHit(event.shiftKey ? -1 : 1);
      } else if (event.key === "Escape") {
        field.value = "";
        search();
        frame.focus();
      }
    });
    const buttons = {
      in: () => eye.zoom(1.35), out: () => eye.zoom(1 / 1.35), whole, read: readable,
    };
    bar.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      buttons[button.dataset.do]();
    });

    const keys = {
      "+": () => eye.zoom(1.25), "=": () => eye.zoom(1.25), "-": () => eye.zoom(0.8),
      0: whole, "/": () => field.focus(),
      ArrowUp: () => eye.move(0, -90), ArrowDown: () => eye.move(0, 90),
      ArrowLeft: () => eye.move(-90, 0), ArrowRight: () => eye.move(90, 0),
      "[": () => choose(clamp(chosen < 0 ? 0 : chosen - 1, 0, rows.length - 1)),
      "]": () => choose(clamp(chosen + 1, 0, rows.length - 1)),
      Escape: () => choose(-1),
    };
    figure.addEventListener("keydown", (event) => {
      const inside = frame.contains(event.target) || details.contains(event.target);
      if (!inside || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target !== frame && event.key.startsWith("Arrow")) return;
      if (!Object.hasOwn(keys, event.key)) return;
      event.preventDefault();
      keys[event.key]();
    });

    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && document.activeElement !== frame) return; // the page scrolls
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      eye.zoom(Math.exp(clamp(-event.deltaY * lines, -200, 200) / 400), event.clientX, event.clientY);
    }, { passive: false });

    const fingers = new Map();
    let travelled = 0;
    let pressed = null;
    frame.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      if (!fingers.size) travelled = 0;
      pressed = event.target.closest(".tt-node");
      fingers.set(event.pointerId, event);
      frame.setPointerCapture(event.pointerId);
      frame.classList.add("tt-moving");
    });
    frame.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
      travelled += Math.abs(dx) + Math.abs(dy);
      if (fingers.size === 2) {
        const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
        const far = (finger) =>
          Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY) || 1;
        eye.zoom(far(event) / far(before), other.clientX, other.clientY);
      } else {
        eye.move(-dx, -dy);
      }
      fingers.set(event.pointerId, event);
    });
    const lift = (event) => {
      if (!fingers.delete(event.pointerId)) return;
      frame.classList.toggle("tt-moving", fingers.size > 0);
      if (event.type === "pointerup" && travelled < 6 && pressed) choose(Number(pressed.dataset.row));
    };
    frame.addEventListener("pointerup", lift);
    frame.addEventListener("pointercancel", lift);

    const jump = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = overview.getBoundingClientRect();
      eye.set(
        ((event.clientX - box.left) / box.width) * eye.width,
        ((event.clientY - box.top) / box.height) * eye.height, eye.view.k,
      );
    };
    overview.addEventListener("pointerdown", (event) => {
      overview.setPointerCapture(event.pointerId);
      jump(event);
    });
    overview.addEventListener("pointermove", jump);

    figure.classList.add("tt-ready");
    bar.hidden = false;
    overview.hidden = eye.height < 2.5 * eye.size()[1];
    readable();
    eye.paint();
  }

  function startAll() {
    for (const figure of document.querySelectorAll("figure.tt-zoom:not(.tt-ready)")) start(figure);
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", startAll);
  else startAll();
})();

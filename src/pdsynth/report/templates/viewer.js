// The viewer: the three planes of up to five volumes with one crosshair. It draws on canvases and loads nothing.
(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const page = JSON.parse(document.getElementById("volumes").textContent);
  // The box of voxels that is shown: its size, its place and the distances in it. A missing scan has a box of its own.
  let grid, size, spacing, stride, widest;
  const fit = (found) => {
    grid = found;
    size = grid.size;
    spacing = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => grid.affine[row][axis])));
    stride = [size[1] * size[2], size[2], 1];
    widest = Math.max(...PLANES.map(width));
  };
  // For each plane (sagittal, coronal, axial): the axes to the right and up, and the letters at left, right and top.
  const PLANES = [
    { name: "sagittal", axis: 0, right: 1, up: 2, letters: ["P", "A", "S"] },
    { name: "coronal", axis: 1, right: 0, up: 2, letters: ["L", "R", "S"] },
    { name: "axial", axis: 2, right: 0, up: 1, letters: ["L", "R", "A"] },
  ];
  const width = (plane) => size[plane.right] * spacing[plane.right];
  const height = (plane) => size[plane.up] * spacing[plane.up];
  const GRAB = 16; // pixels around the line of the swipe
  const RULER_MM = 50;
  const start = {
    black: 0, white: page.tops.signal, colours: 1, overlay: "", opacity: 0.6, swipe: 0.5, crosshair: true, smooth: true,
    ruler: true,
  };
  const state = {
    ...start, at: [0, 0, 0], person: 0, direction: null, mode: "all", plane: 2, against: "source", radiological: false,
  };
  const SWITCHES = ["crosshair", "smooth", "ruler", "radiological"];
  const input = (name) => root.querySelector(`[name="${name}"]`);
  const radios = (name) => [...root.querySelectorAll(`[name="${name}"]`)];
  const minus = (text) => (Number(text) ? text.replace("-", "\u2212") : text.replace("-", "")); // no minus before a zero
  const panes = root.querySelector(".panes");

  // Volumes. Bytes become values once, when a participant and a direction are chosen.
  const bytes = (text) => Uint8Array.from(atob(text.split(",")[1]), (letter) => letter.charCodeAt(0));
  const decoded = (volume) => {
    const step = (volume.high - volume.low) / 255;
    return Float32Array.from(bytes(volume.data), (level) => volume.low + step * level);
  };
  const tables = Object.fromEntries(Object.entries(page.colours).map(([kind, text]) => [kind, bytes(text)]));
  let layers = {};
  const load = () => {
    const person = page.people[state.person], found = person.directions[state.direction];
    const [from, to] = found.names;
    const synthesised = decoded(found.volume), bits = bytes(found.brain);
    const brain = (values) => values.map((value, i) => ((bits[i >> 3] >> (7 - (i & 7))) & 1 ? value : 0));
    layers = {};
    if (page.grids[person.grid] !== grid) {
      fit(page.grids[person.grid]);
      state.at = [...grid.cut];
      ["x", "y", "z"].forEach((name, axis) => (input(name).max = size[axis] - 1));
    }
    const source = person.scans[found.source], scan = person.scans[found.target];
    if (source) layers.source = { title: `Source ${from}`, kind: "grey", values: decoded(source) };
    if (scan) layers.real = { title: `Real ${to}`, kind: "grey", values: decoded(scan) };
    layers.synthesised = { title: `Synthesised ${to}`, kind: "grey", values: synthesised };
    if (scan) {
      const values = brain(synthesised.map((value, i) => value - layers.real.values[i]));
      layers.difference = { title: "Synthesised \u2212 real", kind: "difference", values };
    }
    if (found.deviation) {
      layers.deviation = { title: "Uncertainty", kind: "deviation", values: brain(decoded(found.deviation)) };
    }
    root.querySelector('[name="scores"]').textContent = found.scores.join(" \u00b7 ");
    // Without a real scan there is nothing to compare with, and a missing scan was synthesised in one direction.
    if (!layers[state.against]) state.against = Object.keys(layers)[0];
    if (!layers[state.overlay]) state.overlay = "";
    const choice = (name) => input(name).querySelectorAll("option");
    [...choice("against"), ...choice("overlay")].forEach((option) => {
      option.disabled = option.value !== "" && !layers[option.value];
    });
    radios("direction").forEach((radio) => (radio.disabled = !person.directions[radio.value]));
  };
  const value = (layer) => layer.values[state.at.reduce((sum, at, axis) => sum + at * stride[axis], 0)];
  const millimetres = (at) =>
    [0, 1, 2].map((row) => grid.affine[row][3] + at.reduce((sum, v, axis) => sum + v * grid.affine[row][axis], 0));
  const position = (axis) => `${"xyz"[axis]} = ${minus(millimetres(state.at)[axis].toFixed(0))} mm`;

  // Drawing.
  const sheet = document.createElement("canvas");
  const pen = sheet.getContext("2d");
  // Whether a plane is drawn from the participant's right to the left, as radiologists are used to.
  const turned = (plane) => state.radiological && plane.right === 0;
  // One slice of a layer on the sheet, a pixel per voxel. share: the opacity of the strongest colour of an overlay.
  const slice = (layer, plane, share = null) => {
    const w = size[plane.right], h = size[plane.up];
    if (sheet.width !== w || sheet.height !== h) [sheet.width, sheet.height] = [w, h];
    const image = pen.createImageData(w, h), out = image.data, table = tables[layer.kind];
    const top = layer.kind === "grey" ? 0 : page.tops[layer.kind] * state.colours;
    const right = turned(plane) ? -stride[plane.right] : stride[plane.right], up = stride[plane.up];
    const first = state.at[plane.axis] * stride[plane.axis] + (turned(plane) ? (w - 1) * stride[plane.right] : 0);
    for (let row = 0, at = 0; row < h; row++) {
      for (let column = 0; column < w; column++, at += 4) {
        const v = layer.values[first + column * right + (h - 1 - row) * up];
        if (layer.kind === "grey") {
          out[at] = out[at + 1] = out[at + 2] = (255 * (v - state.black)) / (state.white - state.black);
        } else {
          const part = layer.kind === "difference" ? (v / top + 1) / 2 : v / top;
          const entry = 3 * Math.round(255 * Math.min(1, Math.max(0, part)));
          out[at] = table[entry];
          out[at + 1] = table[entry + 1];
          out[at + 2] = table[entry + 2];
        }
        out[at + 3] = share === null ? 255 : 255 * share * Math.min(1, Math.abs(v) / top);
      }
    }
    pen.putImageData(image, 0, 0);
    return sheet;
  };
  const line = (brush, x0, y0, x1, y1) => {
    brush.beginPath();
    brush.moveTo(x0, y0);
    brush.lineTo(x1, y1);
    brush.stroke();
  };
  const draw = (canvas) => {
    const plane = PLANES[canvas.dataset.plane], swipe = canvas.dataset.layer === "swipe";
    const ratio = window.devicePixelRatio || 1;
    const w = Math.round(canvas.clientWidth * ratio), h = Math.round(canvas.clientHeight * ratio);
    if (!w || !h) return; // hidden
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    const brush = canvas.getContext("2d");
    brush.imageSmoothingEnabled = state.smooth;
    brush.imageSmoothingQuality = "high";
    const paint = (name, from, to) => {
      brush.save();
      brush.beginPath();
      brush.rect(from, 0, to - from, h);
      brush.clip();
      brush.drawImage(slice(layers[name], plane), 0, 0, w, h);
      if (name === "synthesised" && layers[state.overlay]) {
        brush.drawImage(slice(layers[state.overlay], plane, state.opacity), 0, 0, w, h);
      }
      brush.restore();
    };
    const edge = Math.round(state.swipe * w);
    if (swipe) {
      paint(state.against, 0, edge);
      paint("synthesised", edge, w);
      brush.strokeStyle = brush.fillStyle = "#ffcf70";
      brush.lineWidth = 1.5 * ratio;
      line(brush, edge, 0, edge, h);
      brush.beginPath();
      brush.arc(edge, h / 2, 5 * ratio, 0, 7);
      brush.fill();
    } else {
      paint(canvas.dataset.layer, 0, w);
    }
    if (state.crosshair) {
      const part = (state.at[plane.right] + 0.5) / size[plane.right], x = (turned(plane) ? 1 - part : part) * w;
      const y = (1 - (state.at[plane.up] + 0.5) / size[plane.up]) * h;
      const gap = 7 * ratio;
      brush.strokeStyle = "rgba(92, 195, 214, .6)";
      brush.lineWidth = ratio;
      line(brush, x, 0, x, y - gap);
      line(brush, x, y + gap, x, h);
      line(brush, 0, y, x - gap, y);
      line(brush, x + gap, y, w, y);
    }
    const text = (words, x, y, align, colour, points, from, to) => {
      brush.save();
      brush.beginPath();
      brush.rect(from, 0, to - from, h);
      brush.clip();
      brush.font = `600 ${points * ratio}px ui-sans-serif, system-ui, sans-serif`;
      brush.textAlign = align;
      brush.lineWidth = 3 * ratio;
      brush.strokeStyle = "rgba(0, 0, 0, .7)";
      brush.strokeText(words, x, y);
      brush.fillStyle = colour;
      brush.fillText(words, x, y);
      brush.restore();
    };
    const [left, right, above] = turned(plane) ? ["R", "L", plane.letters[2]] : plane.letters, pad = 4 * ratio;
    text(left, pad, h / 2 - 8 * ratio, "left", "rgba(143, 208, 220, .85)", 10, 0, w);
    text(right, w - pad, h / 2 - 8 * ratio, "right", "rgba(143, 208, 220, .85)", 10, 0, w);
    text(above, w / 2 + 8 * ratio, 11 * ratio, "left", "rgba(143, 208, 220, .85)", 10, 0, w);
    if (state.ruler) {
      const length = (RULER_MM / width(plane)) * w, y = 22 * ratio, x = pad + ratio, tick = 3 * ratio;
      brush.strokeStyle = "rgba(143, 208, 220, .85)";
      brush.lineWidth = 1.5 * ratio;
      [[x, y, x + length, y], [x, y - tick, x, y + tick], [x + length, y - tick, x + length, y + tick]].forEach((ends) =>
        line(brush, ...ends));
      text("5 cm", x, y - 6 * ratio, "left", "rgba(143, 208, 220, .85)", 9, 0, w);
    }
    // The marks are part of the picture, so that a picture saved from the page has them too.
    const mark = (name, from, to) => {
      const made = name === "synthesised";
      const middle = swipe ? (made ? w - pad : pad) : w / 2;
      const align = swipe ? (made ? "right" : "left") : "center";
      text(page.marks[made ? "synthesised" : "real"], middle, h - pad, align, made ? "#ffcf70" : "#9aa3ad", swipe ? 10 : 8, from, to);
    };
    if (swipe) {
      mark(state.against, 0, edge);
      mark("synthesised", edge, w);
    } else if (layers[canvas.dataset.layer].kind === "grey") {
      mark(canvas.dataset.layer, 0, w);
    }
    const shown = swipe ? `${layers[state.against].title} and synthesised, side by side` : layers[canvas.dataset.layer].title;
    canvas.setAttribute("aria-label", `${shown}, ${plane.name} slice, ${position(plane.axis)}`);
  };
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      panes.querySelectorAll("canvas").forEach(draw);
    });
  };

  // The grid of panes: a column per layer and a row per plane, or one row of three wide planes for the swipe.
  const build = () => {
    panes.replaceChildren();
    root.dataset.mode = state.mode;
    const names = state.mode === "swipe" ? ["swipe"] : Object.keys(layers);
    panes.style.setProperty("--n", names.length);
    const add = (parent, tag, kind, text = "") => {
      const made = document.createElement(tag);
      made.className = kind;
      made.textContent = text;
      parent.append(made);
      return made;
    };
    names.forEach((name) => {
      const column = add(panes, "div", `pane-column ${name}`);
      const head = add(column, "p", "head");
      head.dataset.layer = name;
      PLANES.forEach((plane, number) => {
        const cell = add(column, "div", "pane");
        cell.dataset.plane = number;
        const canvas = add(cell, "canvas", "");
        Object.assign(canvas.dataset, { layer: name, plane: number });
        canvas.setAttribute("role", "img");
        canvas.style.setProperty("--share", width(plane) / widest);
        cell.style.setProperty("--wide", width(plane));
        canvas.style.aspectRatio = `${width(plane)} / ${height(plane)}`;
      });
    });
  };

  // Everything that shows the state.
  const update = () => {
    root.querySelector('[name="position"]').textContent = `${[0, 1, 2].map(position).join("   ")} (${grid.space})`;
    const [span, middle] = [state.white - state.black, (state.white + state.black) / 2];
    root.querySelector('[name="window"]').textContent = `W ${span.toFixed(2)}, L ${middle.toFixed(2)}`;
    panes.querySelectorAll(".head").forEach((head) => {
      const name = head.dataset.layer;
      const shown = (layer) => `${layer.title}  ${minus(value(layer).toFixed(2))}`;
      head.title = "The number is the value at the crosshair.";
      head.textContent = name === "swipe"
        ? `${shown(layers[state.against])}   |   ${shown(layers.synthesised)}` : shown(layers[name]);
    });
    ["x", "y", "z"].forEach((name, axis) => slider(name, state.at[axis], position(axis).slice(4)));
    ["black", "white"].forEach((name) => slider(name, state[name], state[name].toFixed(2)));
    const top = (kind) => (page.tops[kind] * state.colours).toPrecision(2);
    slider("colours", state.colours, layers.difference ? `\u00b1${top("difference")}` : top("deviation"));
    ["opacity", "swipe"].forEach((name) => slider(name, state[name], `${Math.round(100 * state[name])} %`));
    SWITCHES.forEach((name) => (input(name).checked = state[name]));
    ["overlay", "against", "person"].forEach((name) => (input(name).value = state[name]));
    ["mode", "direction", "plane"].forEach((name) =>
      radios(name).forEach((radio) => (radio.checked = radio.value === String(state[name]))));
    panes.dataset.plane = state.plane;
    const ends = {
      grey: [state.black.toFixed(2), state.white.toFixed(2)],
      difference: [`\u2212${top("difference")}`, `+${top("difference")}`], deviation: ["0", top("deviation")],
    };
    root.querySelectorAll(".bar").forEach((bar) => {
      const kind = Object.keys(ends).find((name) => bar.classList.contains(name));
      bar.hidden = !Object.values(layers).some((layer) => layer.kind === kind);
      bar.querySelectorAll(".end").forEach((end, i) => (end.textContent = ends[kind][i]));
    });
    redraw();
  };
  const slider = (name, number, text) => {
    const range = input(name);
    range.value = number;
    range.setAttribute("aria-valuetext", text);
    range.parentElement.querySelector("output").textContent = text;
  };
  const change = (changes) => {
    const old = { ...state };
    Object.assign(state, changes);
    if (state.person !== old.person || state.direction !== old.direction) {
      const { directions } = page.people[state.person], shown = Object.keys(layers).join(), place = grid;
      if (!directions[state.direction]) state.direction = Object.keys(directions)[0];
      load();
      if (grid !== place || Object.keys(layers).join() !== shown) build();
    }
    if (state.mode !== old.mode) build();
    update();
  };
  const move = (axis, to) => {
    const at = [...state.at];
    at[axis] = Math.min(size[axis] - 1, Math.max(0, to));
    change({ at });
  };
  const reset = () => change({ ...start, at: [...grid.cut] });

  // Controls.
  root.addEventListener("input", ({ target }) => {
    const { name } = target, number = Number(target.value);
    if ("xyz".includes(name)) move("xyz".indexOf(name), number);
    else if (name === "black") change({ black: Math.min(number, state.white - 0.01) });
    else if (name === "white") change({ white: Math.max(number, state.black + 0.01) });
    else if (SWITCHES.includes(name)) change({ [name]: target.checked });
    else if (["colours", "opacity", "swipe", "person", "plane"].includes(name)) change({ [name]: number });
    else change({ [name]: target.value });
  });
  input("reset").addEventListener("click", reset);

  // Pointer: in a slice it moves the crosshair, or the line of the swipe if it is pressed on it.
  let dragged = null;
  const follow = (event) => {
    const box = dragged.canvas.getBoundingClientRect(), plane = PLANES[dragged.canvas.dataset.plane];
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    if (dragged.line) return change({ swipe: Math.min(1, Math.max(0, across)) });
    const at = [...state.at];
    [[plane.right, turned(plane) ? 1 - across : across], [plane.up, 1 - down]].forEach(([axis, part]) => {
      at[axis] = Math.min(size[axis] - 1, Math.max(0, Math.floor(part * size[axis])));
    });
    change({ at });
  };
  panes.addEventListener("pointerdown", (event) => {
    const canvas = event.target.closest("canvas");
    if (!canvas || event.button) return;
    const box = canvas.getBoundingClientRect(), edge = box.left + state.swipe * box.width;
    dragged = { canvas, line: canvas.dataset.layer === "swipe" && Math.abs(event.clientX - edge) < GRAB };
    canvas.setPointerCapture(event.pointerId);
    follow(event);
  });
  panes.addEventListener("pointermove", (event) => dragged && follow(event));
  ["pointerup", "pointercancel"].forEach((name) => panes.addEventListener(name, () => (dragged = null)));
  panes.addEventListener("wheel", (event) => {
    const canvas = event.target.closest("canvas");
    if (!canvas || document.activeElement !== panes || event.ctrlKey || !event.deltaY) return;
    event.preventDefault();
    const { axis } = PLANES[canvas.dataset.plane];
    move(axis, state.at[axis] - Math.sign(event.deltaY));
  }, { passive: false });

  const aside = (step) => move(0, state.at[0] + (state.radiological ? -step : step));
  const turn = (step) => change({ person: (state.person + step + page.people.length) % page.people.length });
  const KEYS = {
    ArrowLeft: () => aside(-1), ArrowRight: () => aside(1),
    ArrowDown: () => move(2, state.at[2] - 1), ArrowUp: () => move(2, state.at[2] + 1),
    PageDown: () => move(1, state.at[1] - 1), PageUp: () => move(1, state.at[1] + 1),
    "[": () => change({ swipe: Math.max(0, state.swipe - 0.05) }),
    "]": () => change({ swipe: Math.min(1, state.swipe + 0.05) }),
    v: () => change({ mode: state.mode === "all" ? "swipe" : "all" }),
    d: () => {
      const other = radios("direction").find((radio) => !radio.checked && !radio.disabled);
      if (other) change({ direction: other.value });
    },
    n: () => turn(1), p: () => turn(-1), c: () => change({ crosshair: !state.crosshair }), 0: reset,
    r: () => change({ radiological: !state.radiological }), m: () => change({ ruler: !state.ruler }),
    "?": () => { root.querySelector("#viewer-keys").open = !root.querySelector("#viewer-keys").open; },
  };
  panes.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  // A link beside the fixed slices of a missing scan shows it in the viewer.
  document.querySelectorAll("[data-shows]").forEach((link) =>
    link.addEventListener("click", () => change({ person: Number(link.dataset.shows) })));

  root.hidden = false;
  state.direction = radios("direction")[0].value;
  load();
  build();
  update();
  new ResizeObserver(redraw).observe(panes);
})();

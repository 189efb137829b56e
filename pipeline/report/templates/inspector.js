// The soft-label inspector: finds, sorts and shows samples. Text goes into the page as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent).inspector;
const element = (id) => document.getElementById(id);
const CLASSES_SHOWN = 10;

if (data) {
  const state = { sort: null, ascending: true, selected: null, view: 0, temperature: data.temperature, rows: [] };

  for (const sample of data.samples) {
    sample.teacher = outputs(sample.teacherOutputs);
    sample.learnt = outputs(sample.studentOutputs);
  }

  // One Float32Array (C,) a view.
  function outputs(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const values = new Float32Array(bytes.buffer);
    const count = data.classes.length;
    return Array.from({ length: data.views }, (_, view) => values.subarray(view * count, (view + 1) * count));
  }

  function softmax(logits, temperature) {
    const largest = Math.max(...logits);
    const powers = Array.from(logits, (value) => Math.exp((value - largest) / temperature));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  }

  const className = (label) => (label < 0 ? "–" : data.classes[label]);
  const percent = (share) => `${(100 * share).toFixed(2)} %`;
  const number = (value) => (value === null ? "–" : value.toFixed(4));

  function make(name, text = "", kind = "") {
    const made = document.createElement(name);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  }

  function matches(sample) {
    const words = element("search").value.trim().toLowerCase();
    const label = element("label").value;
    const kind = element("kind").value;
    const named = [sample.label, sample.answer, sample.student].map((one) => className(one).toLowerCase());
    const found = /^\d+$/.test(words) && !named.includes(words)
      ? String(sample.index) === words
      : named.some((name) => name.includes(words)) || String(sample.index) === words;
    return (
      (!words || found) &&
      (label === "" || sample.label === Number(label)) &&
      (kind === "all" ||
        (kind === "label" && sample.doubtful) ||
        (kind === "doubted" && sample.label >= 0 && sample.answer !== sample.label) ||
        (kind === "differ" && sample.student !== sample.viewAnswer))
    );
  }

  function compare(one, other) {
    const [first, second] = [one[state.sort], other[state.sort]];
    if (first === second) return one.index - other.index;
    if (first === null || second === null) return first === null ? 1 : -1; // what is unknown comes last
    return (first < second ? -1 : 1) * (state.ascending ? 1 : -1);
  }

  function list() {
    state.rows = data.samples.filter(matches);
    if (state.sort) state.rows.sort(compare);
    element("found").textContent = `${state.rows.length} of ${data.samples.length} samples`;
    element("samples").tBodies[0].replaceChildren(...state.rows.map(row));
    if (!state.rows.includes(state.selected)) select(state.rows[0] ?? null);
    mark();
  }

  function row(sample) {
    const made = document.createElement("tr");
    made.dataset.index = sample.index;
    if (data.size) {
      const cell = make("td");
      const image = document.createElement("img");
      image.alt = "";
      place(image, sample, 0, 36);
      cell.append(image);
      made.append(cell);
    }
    made.append(
      make("td", String(sample.index)),
      make("td", className(sample.label), "text"),
      make("td", className(sample.answer), "text"),
      make("td", className(sample.student), "text"),
      make("td", number(sample.entropy)),
      make("td", number(sample.labelShare)),
      make("td", number(sample.differs)),
    );
    made.addEventListener("click", () => {
      select(sample);
      mark();
    });
    return made;
  }

  // The views lie side by side in one image, of which one shows.
  function place(image, sample, view, height) {
    const [width, own] = data.size;
    image.className = "pixels";
    image.src = sample.image;
    image.style.height = `${height}px`;
    image.style.width = `${(height * width) / own}px`;
    image.style.objectPosition = `${data.views > 1 ? (100 * view) / (data.views - 1) : 0}% 0`;
  }

  function mark() {
    for (const one of element("samples").tBodies[0].rows) {
      const selected = state.selected !== null && Number(one.dataset.index) === state.selected.index;
      one.setAttribute("aria-selected", String(selected));
      one.tabIndex = selected ? 0 : -1;
    }
  }

  function select(sample) {
    state.selected = sample;
    state.view = 0;
    element("sample").hidden = sample === null;
    if (sample) show();
  }

  function show() {
    const sample = state.selected;
    element("sample-title").textContent = `Sample ${sample.index}, label ${className(sample.label)}`;
    element("sample-file").textContent = sample.file ?? "";
    element("sample-reason").textContent = `From: ${data.reasons[sample.reason]}.`;
    if (data.size) {
      const image = element("sample-image");
      const [width, height] = data.size;
      place(image, sample, state.view, Math.min(192, (192 * height) / width));
      image.alt = `sample ${sample.index}, view ${state.view}`;
    } else {
      element("sample-text").textContent = sample.text;
    }
    element("sample-views").replaceChildren(...(data.views > 1 ? sample.teacher.map((_, view) => viewButton(view)) : []));
    answers();
  }

  function viewButton(view) {
    const button = make("button", String(view));
    button.type = "button";
    button.setAttribute("aria-label", `view ${view}`);
    button.setAttribute("aria-pressed", String(view === state.view));
    button.addEventListener("click", () => {
      state.view = view;
      show();
      element("sample-views").children[view].focus();
    });
    return button;
  }

  function answers() {
    const sample = state.selected;
    const teacher = softmax(sample.teacher[state.view], state.temperature);
    const student = softmax(sample.learnt[state.view], state.temperature);
    const order = teacher.map((_, label) => label).sort((one, other) => teacher[other] - teacher[one] || one - other);
    const both = order.slice(0, CLASSES_SHOWN);
    const best = student.indexOf(Math.max(...student));
    for (const label of [best, sample.label]) {
      if (label >= 0 && !both.includes(label)) both.push(label);
    }
    element("answers").tBodies[0].replaceChildren(
      ...both.map((label) => {
        const made = document.createElement("tr");
        const name = make("th", className(label), label === sample.label ? "text mark" : "text");
        name.title = className(label);
        name.scope = "row";
        made.append(name, bar(teacher[label], "teacher"), bar(student[label], "student"));
        return made;
      }),
    );
    element("temperature-value").textContent = `T = ${Number(state.temperature.toFixed(2))}`;
    element("temperature").value = state.temperature;
  }

  function bar(share, whose) {
    const cell = make("td", "", whose);
    const length = make("div", "", "bar");
    length.style.width = `${100 * share}%`;
    cell.append(length, make("span", percent(share)));
    return cell;
  }

  function step(event) {
    const place = state.rows.indexOf(state.selected);
    const last = state.rows.length - 1;
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: last }[event.key];
    if (to === undefined || to < 0 || to > last) return;
    event.preventDefault();
    select(state.rows[to]);
    mark();
    element("samples").tBodies[0].rows[to].focus();
  }

  for (const button of document.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
      state.ascending = state.sort === button.dataset.sort ? !state.ascending : true;
      state.sort = button.dataset.sort;
      for (const other of document.querySelectorAll("[data-sort]")) {
        const own = other === button ? (state.ascending ? "ascending" : "descending") : "none";
        other.closest("th").setAttribute("aria-sort", own);
      }
      list();
    });
  }
  for (const button of document.querySelectorAll("[data-temperature]")) {
    button.addEventListener("click", () => {
      state.temperature = Number(button.dataset.temperature);
      answers();
    });
  }
  element("temperature").max = Math.max(20, 2 * data.temperature);
  element("temperature").addEventListener("input", (event) => {
    state.temperature = Number(event.target.value);
    answers();
  });
  for (const id of ["search", "label", "kind"]) element(id).addEventListener("input", list);
  element("samples").tBodies[0].addEventListener("keydown", step);
  list();
}

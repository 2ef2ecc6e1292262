// Tables: a click on a heading sorts, a third click restores the order; a button downloads the table as TSV.
(() => {
  const plain = (text) => text.replace(/\s+/g, " ").replaceAll("\u2212", "-").trim();
  // A cell as its value and what stands in small letters or in parentheses below it: "25.1 (24.0 to 26.1)".
  const parts = (cell) => {
    const copy = cell.cloneNode(true), small = [...copy.querySelectorAll("small")];
    small.forEach((each) => each.remove());
    const [, value, interval] = plain(copy.textContent).match(/^(.*?)(?: \(([^()]* to [^()]*)\))?$/);
    return { value, extra: interval || small.map((each) => plain(each.textContent)).join(" ") };
  };
  const number = (text) => {
    const found = text.match(/^(< )?([-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?)(?: %| dB)?$/i);
    return found ? Number(found[2]) - (found[1] ? 1e-9 : 0) : NaN;
  };
  const EMPTY = ["", "\u2013"];

  const sortable = (heads, body) => {
    const order = [...body.rows];
    const rows = order.filter((row) => !row.classList.contains("group"));
    const sort = (column, way) => {
      heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? way : "none"));
      if (way === "none") return body.append(...order);
      const keyed = rows.map((row) => ({ row, text: parts(row.cells[column]).value }));
      const full = keyed.filter(({ text }) => !EMPTY.includes(text)), empty = keyed.filter(({ text }) => EMPTY.includes(text));
      const numeric = full.every(({ text }) => !Number.isNaN(number(text)));
      const sign = way === "ascending" ? 1 : -1;
      full.sort((a, b) => sign * (numeric ? number(a.text) - number(b.text) : a.text.localeCompare(b.text)));
      order.filter((row) => !rows.includes(row)).forEach((row) => row.remove()); // headings of groups
      body.append(...[...full, ...empty].map(({ row }) => row));
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const text = rows.some((row) => row.cells[column].matches("th, .text"));
        const ways = ["none", ...(text ? ["ascending", "descending"] : ["descending", "ascending"])];
        sort(column, ways[(ways.indexOf(head.getAttribute("aria-sort")) + 1) % 3]);
      });
    });
  };

  // A spreadsheet must not evaluate a cell as a formula.
  const safe = (text) => (EMPTY.includes(text) ? "n/a" : /^[=+@-]/.test(text) && Number.isNaN(number(text)) ? `'${text}` : text);
  // The headings of groups in a table, by row: a sorted table does not show them.
  const groupsOf = (body) => {
    let group = "";
    const found = new Map();
    [...body.rows].forEach((row) => {
      if (row.classList.contains("group")) group = plain(row.textContent);
      else found.set(row, group);
    });
    return found;
  };
  const tsv = (heads, body, groups) => {
    const shown = [...body.rows].filter((row) => groups.has(row));
    const rows = shown.map((row) => ({ group: groups.get(row), cells: [...row.cells].map(parts) }));
    const columns = heads.flatMap((head, i) => {
      const name = plain(head.textContent);
      const own = { name, text: (row) => row.cells[i].value };
      if (!rows.some((row) => row.cells[i].extra)) return [own];
      return [own, { name: `${name}, ${i ? "95 % interval" : "note"}`, text: (row) => row.cells[i].extra }];
    });
    if (rows.some((row) => row.group)) columns.unshift({ name: "Group", text: (row) => row.group });
    return [columns.map(({ name }) => name), ...rows.map((row) => columns.map(({ text }) => safe(text(row))))]
      .map((cells) => cells.join("\t")).join("\n") + "\n";
  };
  const fileName = (title) => {
    const words = title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60);
    return `${document.body.dataset.prefix || ""}${words}.tsv`;
  };

  document.querySelectorAll(".scroll").forEach((frame) => {
    const table = frame.querySelector("table"), [body] = table.tBodies;
    if (!table.tHead || !body) return;
    const heads = [...table.tHead.rows[0].cells], groups = groupsOf(body), title = frame.getAttribute("aria-label");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "download";
    button.textContent = "Download as TSV";
    button.setAttribute("aria-label", `Download as TSV: ${title}`);
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([tsv(heads, body, groups)], { type: "text/tab-separated-values" }));
      link.download = fileName(title);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    frame.after(button);
    sortable(heads, body);
  });
})();

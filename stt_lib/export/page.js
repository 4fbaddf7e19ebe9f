"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const query = byId("query"), count = byId("count");
  const buttons = [byId("previous"), byId("next")];
  const tracks = [...document.querySelectorAll(".track")];
  const rows = [...document.querySelectorAll(".said")].map((row) => ({
    row, text: row.lastElementChild.firstChild, time: Date.parse(row.querySelector("time").dateTime),
    part: row.closest("section").id, folded: null,
  }));
  let matches = [], current = -1, waiting = 0;

  // -- search ---------------------------------------------------------------------------------

  // Letters without their accents, in lower case; `places` leads back when that changes lengths.
  const fold = (text) => {
    let letters = "";
    const places = [];
    for (let at = 0; at < text.length; at++) {
      const letter = text[at].normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
      for (let n = 0; n < letter.length; n++) places.push(at);
      letters += letter;
    }
    places.push(text.length);
    return { letters, places };
  };

  const find = (wanted) => {
    const found = [];
    for (const entry of rows) {
      entry.folded ??= fold(entry.text.data);
      const { letters, places } = entry.folded;
      for (let at = letters.indexOf(wanted); at >= 0; at = letters.indexOf(wanted, at + wanted.length)) {
        found.push({ entry, start: places[at], end: places[at + wanted.length - 1] + 1 });
      }
    }
    return found;
  };

  const range = ({ entry, start, end }) => {
    const made = new Range();
    made.setStart(entry.text, start);
    made.setEnd(entry.text, end);
    return made;
  };

  const paint = (name, found) => {
    if (!globalThis.CSS?.highlights) return;
    if (found.length) CSS.highlights.set(name, new Highlight(...found.map(range)));
    else CSS.highlights.delete(name);
  };

  const search = () => {
    const wanted = fold(query.value.trim().replace(/\s+/g, " ")).letters;
    matches = wanted ? find(wanted) : [];
    paint("found", matches.slice(0, 20000));
    markTracks();
    for (const button of buttons) button.disabled = !matches.length;
    const top = byId("search").getBoundingClientRect().bottom;
    const below = matches.findIndex(({ entry }) => entry.row.getBoundingClientRect().bottom > top);
    show(matches.length ? Math.max(below, 0) : -1);
    if (wanted && !matches.length) count.value = "nothing found";
  };

  const show = (which) => {
    matches[current]?.entry.row.classList.remove("here");
    for (const row of document.querySelectorAll(".here")) row.classList.remove("here");
    current = which;
    const match = matches[current];
    paint("here", match ? [match] : []);
    count.value = match ? `${current + 1} of ${matches.length}` : "";
    if (!match) return;
    match.entry.row.classList.add("here");
    match.entry.row.scrollIntoView({ block: "center" });
  };

  const step = (by) => {
    if (matches.length) show((current + by + matches.length) % matches.length);
  };

  // -- the timeline ---------------------------------------------------------------------------

  const spanOf = (track) => [Date.parse(track.dataset.begin), Date.parse(track.dataset.end)];

  const isOn = (track, { part }) => track.dataset.parts.split(" ").includes(part);

  const markTracks = () => {
    for (const track of tracks) {
      const [begin, end] = spanOf(track);
      const theirs = matches.filter(({ entry }) => isOn(track, entry));
      const places = new Set(theirs.map(({ entry }) => ((entry.time - begin) / (end - begin) * 100).toFixed(1)));
      track.querySelector(".marks").replaceChildren(...[...places].map((place) => {
        const mark = document.createElementNS("http://www.w3.org/2000/svg", "rect");
        for (const [name, value] of Object.entries({ x: `${place}%`, y: 0, width: 3, height: 28 })) {
          mark.setAttribute(name, value);
        }
        return mark;
      }));
    }
  };

  const visit = (track, event) => {
    const [begin, end] = spanOf(track);
    const box = track.getBoundingClientRect();
    const moment = begin + (event.clientX - box.left) / box.width * (end - begin);
    const own = rows.filter((entry) => isOn(track, entry)).sort((a, b) => a.time - b.time);
    const said = own.findLast(({ time }) => time <= moment) ?? own[0];
    location.hash = said.row.id;
  };

  // -- hands ----------------------------------------------------------------------------------

  byId("search").hidden = false;
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 120);
  });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") { query.value = ""; search(); }
  });
  buttons[0].addEventListener("click", () => step(-1));
  buttons[1].addEventListener("click", () => step(1));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target === query || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    query.select();
  });
  for (const track of tracks) track.addEventListener("click", (event) => visit(track, event));
})();

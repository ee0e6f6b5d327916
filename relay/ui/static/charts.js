// The charts of the overview: an hour of history, and a point with every "pulse" that comes. Numbers that only grow are
// shown as how fast they grow; one that is smaller than before (counted anew) is shown as standing still.
"use strict";

(() => {
  const root = document.querySelector("[data-charts]");
  if (!root || !window.uPlot) return;
  const kept = 3600;   // seconds that are shown
  const steady = 10;   // seconds at least that a rate is taken over: single looks would jump
  const shortest = 300; // seconds that are shown at least, so that the first minute is no line across everything
  const points = [];   // pulses, the oldest first, with their time in seconds as t
  const charts = [];

  const units = {
    rate: (v) => `${round(v)}/s`,
    seconds: (v) => `${round(v)} s`,
    count: (v) => Math.round(v).toLocaleString("en"),
    bytes: (v) => {
      const names = ["B", "kB", "MB", "GB", "TB"];
      let i = 0;
      for (; Math.abs(v) >= 999.95 && i < names.length - 1; i++) v /= 1000;
      return `${i ? v.toFixed(1) : Math.round(v)} ${names[i]}`;
    },
  };
  function round(v) { return v >= 100 ? Math.round(v).toLocaleString("en") : String(Math.round(v * 100) / 100); }

  function add(pulse) {
    const t = Date.parse(pulse.at) / 1000;
    const last = points[points.length - 1];
    if (!t || (last && t <= last.t)) return false;
    points.push({...pulse, t});
    while (points.length && points[0].t < t - kept) points.shift();
    return true;
  }

  function column(series) {
    if (!series.rate) return points.map((p) => p[series.field] ?? null);
    let j = 0;
    return points.map((p, i) => {
      while (j + 1 < i && points[j + 1].t <= p.t - steady) j++;
      const before = points[j];
      const a = before[series.field], b = p[series.field];
      if (i === 0 || a == null || b == null || p.t <= before.t) return null;
      return Math.max(0, b - a) / (p.t - before.t);
    });
  }

  function draw() {
    const xs = points.map((p) => p.t);
    for (const chart of charts) {
      const columns = chart.series.map(column);
      chart.plot?.setData([xs, ...columns]);
      chart.series.forEach((series, i) => {
        const value = columns[i][columns[i].length - 1];
        const shown = chart.element.parentElement.querySelector(`[data-value="${series.field}"]`);
        if (shown && value != null) shown.textContent = chart.format(value);
      });
    }
  }

  // Distances between ticks: what is written beside two of them must differ.
  const minutes = [1, 2, 5, 10, 15, 20, 30, 60].map((m) => m * 60);
  const wholes = Array.from({length: 12}, (_, i) => 10 ** i).flatMap((n) => [n, 2 * n, 5 * n]);

  function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  // shown is from when to when: the hour up to now, or since the first point there is.
  function shown() {
    const last = points.length ? points[points.length - 1].t : Date.now() / 1000;
    const first = points.length ? points[0].t : last;
    return [Math.max(last - kept, Math.min(first, last - shortest)), last];
  }

  function build(chart) {
    chart.plot?.destroy();
    const classes = {one: "--series-1", two: "--series-2", three: "--series-3"};
    const axis = {stroke: colour("--muted"), grid: {stroke: colour("--grid"), width: 1}, ticks: {stroke: colour("--grid"), width: 1}, font: "12px system-ui, sans-serif"};
    chart.plot = new uPlot({
      width: Math.max(200, chart.element.clientWidth),
      height: 176,
      legend: {show: false},
      cursor: {drag: {x: false, y: false}, points: {show: false}},
      scales: {x: {range: shown}, y: {range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1]}},
      axes: [
        {...axis, space: 70, size: 32, incrs: minutes, values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toISOString().slice(11, 16))}, // UTC, as all times of the pages
        {...axis, size: 72, ...(chart.format === units.count && {incrs: wholes}), values: (_, ticks) => ticks.map(chart.format)},
      ],
      series: [{}, ...chart.series.map((s) => ({stroke: colour(classes[s.colour]), width: 1.75, spanGaps: false, points: {show: false}}))],
    }, [[], ...chart.series.map(() => [])], chart.element);
  }

  for (const element of root.querySelectorAll("[data-series]")) {
    const series = element.dataset.series.split(" ").map((text) => {
      const [field, colour, kind] = text.split(":");
      return {field, colour, rate: kind === "rate"};
    });
    const chart = {element, series, format: units[element.dataset.unit] ?? String};
    charts.push(chart);
    build(chart);
    new ResizeObserver(() => chart.plot.setSize({width: Math.max(200, element.clientWidth), height: 176})).observe(element);
  }
  document.addEventListener("walhook:theme", () => { charts.forEach(build); draw(); });

  const waiting = [];
  let ready = false;
  document.addEventListener("pulse", (event) => {
    const pulse = JSON.parse(event.detail.data);
    if (!ready) { waiting.push(pulse); return; }
    if (add(pulse)) draw();
  });
  fetch(root.dataset.history, {headers: {"HX-Request": "true"}})
    .then((answer) => answer.ok ? answer.json() : [])
    .catch(() => [])
    .then((history) => {
      ready = true;
      [...history, ...waiting].forEach(add);
      draw();
    });
})();

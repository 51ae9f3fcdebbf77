// Draws the ticks of an engine: a lane for each slot from top to bottom, time from left to right. A pale bar is
// a sequence in its slot; on it, each tick is a block in the colour of what the row was run for. The full part
// of a block are valid time steps, the pale part is padding. A strip below shows the rows of each tick, and a
// line in it the sequences that wait.
const RETENTION_S = 30, MAX_TICKS = 20000, LATE_S = 0.3, FRAME_MS = 33, QUIET_FRAME_MS = 500;
const AXIS = 18, STRIP = 44, GAP = 6, LEFT = 54, MAX_HEIGHT = 520, MIN_LANES = 6;
const SPANS = [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20];

export default {
  template: `<div class="sq-ticks">
    <canvas tabindex="0" role="img" :aria-label="label" @keydown="key" @mousemove="hover" @mouseleave="leave"
      @click="choose" @wheel.prevent="wheel"></canvas>
    <div class="sq-ticks-tip" role="status"></div>
  </div>`,
  props: { kinds: Array, label: String, span: Number },
  emits: ["stop", "span"],
  mounted() {
    this.canvas = this.$el.querySelector("canvas");
    this.tip = this.$el.querySelector(".sq-ticks-tip");
    this.isQuiet = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.clear();
    this.drawnAt = -1e9;
    this.observer = new ResizeObserver(() => (this.isDirty = true));
    this.observer.observe(this.$el);
    const loop = (at) => {
      this.frame = requestAnimationFrame(loop);
      if (at - this.drawnAt >= (this.isQuiet ? QUIET_FRAME_MS : FRAME_MS)) this.drawIfNeeded(at);
    };
    this.frame = requestAnimationFrame(loop);
  },
  unmounted() {
    cancelAnimationFrame(this.frame);
    this.observer.disconnect();
  },
  watch: {
    span() {
      this.isDirty = true;
    },
  },
  methods: {
    clear() {
      this.ticks = [];
      this.bars = [];
      this.latest = new Map();
      this.offset = null;
      this.end = 0;
      this.stopped = null;
      this.chosen = null;
      this.isDirty = true;
      this.tip.textContent = "";
    },
    // Take the ticks since the last call: {now, ticks: [engine, kind, start, duration, steps, waiting, rows]},
    // where rows are slot, sequence, kind, steps of each row, one after the other.
    push(item) {
      if (this.stopped !== null) return;
      const offset = item.now - performance.now() / 1000;
      this.offset = this.offset === null ? offset : Math.max(this.offset - 0.002, offset);
      for (const [engine, kind, start, duration, steps, waiting, flat] of item.ticks) {
        const rows = [];
        for (let at = 0; at < flat.length; at += 4) {
          rows.push({ slot: flat[at], sequence: flat[at + 1], kind: flat[at + 2], steps: flat[at + 3] });
        }
        const tick = { engine, kind, start, end: start + duration, steps, waiting, rows };
        this.ticks.push(tick);
        for (const row of rows) this.extend(tick, row);
      }
      this.end = Math.max(this.end, item.now);
      this.forget();
      this.isDirty = true;
    },
    extend(tick, row) {
      const key = `${tick.engine}:${row.sequence}`;
      let bar = this.latest.get(key);
      if (!bar || bar.slot !== row.slot) {
        bar = { engine: tick.engine, slot: row.slot, sequence: row.sequence, start: tick.start };
        this.latest.set(key, bar);
        this.bars.push(bar);
      }
      bar.end = tick.end;
      bar.kind = row.kind;
    },
    forget() {
      const first = this.end - RETENTION_S;
      let count = Math.max(0, this.ticks.length - MAX_TICKS);
      while (count < this.ticks.length && this.ticks[count].end < first) count++;
      if (count < 256 && count < this.ticks.length) return;
      this.ticks.splice(0, count);
      const oldest = this.ticks.length ? this.ticks[0].start : this.end;
      this.bars = this.bars.filter((bar) => bar.end >= oldest);
      for (const [key, bar] of this.latest) if (bar.end < oldest) this.latest.delete(key);
    },
    // Stop the picture, to look at it, or let it go on.
    stop(isStopped) {
      this.stopped = isStopped ? this.clock() : null;
      if (!isStopped) this.chosen = null;
      this.tip.textContent = isStopped ? this.tip.textContent : "";
      this.isDirty = true;
    },
    clock() {
      return this.offset === null ? 0 : performance.now() / 1000 + this.offset - LATE_S;
    },
    drawIfNeeded(at) {
      const isMoving = this.stopped === null && this.ticks.length && this.clock() < this.end + this.span + 1;
      if (!this.isDirty && !isMoving) return;
      this.isDirty = false;
      this.drawnAt = at;
      this.draw();
    },
    // Lanes of the engines, below each other.
    layout(visible) {
      const counts = new Map();
      for (const bar of visible) counts.set(bar.engine, Math.max(counts.get(bar.engine) || 0, bar.slot + 1));
      const engines = [...counts.keys()].sort((a, b) => a - b);
      let lanes = 0;
      const first = new Map();
      for (const engine of engines) {
        first.set(engine, lanes);
        lanes += counts.get(engine);
      }
      return { first, engines, lanes: Math.max(lanes, MIN_LANES) };
    },
    draw() {
      const width = this.$el.clientWidth;
      const until = this.stopped ?? this.clock();
      const from = until - this.span;
      const ticks = this.ticks.filter((tick) => tick.end >= from && tick.start <= until);
      const bars = this.bars.filter((bar) => bar.end >= from && bar.start <= until);
      const { first, engines, lanes } = this.layout(bars);
      const lane = Math.max(2, Math.min(26, Math.floor((MAX_HEIGHT - AXIS - STRIP - GAP) / lanes)));
      const height = lanes * lane + GAP + STRIP + AXIS;
      const scale = window.devicePixelRatio || 1;
      const canvas = this.canvas;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.style.height = `${height}px`;
      const g = canvas.getContext("2d");
      g.scale(scale, scale);
      const x = (seconds) => LEFT + ((seconds - from) / this.span) * (width - LEFT);
      const y = (engine, slot) => (first.get(engine) + slot) * lane;
      this.view = { from, until, width, lane, lanes, x, y, ticks, first };
      const text = getComputedStyle(this.$el).color;
      this.drawGrid(g, text, engines);
      g.save();
      g.beginPath();
      g.rect(LEFT, 0, width - LEFT, height);
      g.clip();
      for (const bar of bars) {
        g.globalAlpha = 0.28;
        g.fillStyle = this.kinds[bar.kind].color;
        const left = x(bar.start);
        g.fillRect(left, y(bar.engine, bar.slot) + lane * 0.3, Math.max(1, x(bar.end) - left), Math.max(1, lane * 0.4));
      }
      g.globalAlpha = 1;
      for (const tick of ticks) this.drawTick(g, tick);
      this.drawStrip(g, text, ticks);
      g.restore();
      this.$el.dataset.ticks = ticks.length;
      this.$el.dataset.sequences = new Set(bars.map((bar) => `${bar.engine}:${bar.sequence}`)).size;
      this.$el.dataset.total = this.ticks.length;
    },
    drawGrid(g, text, engines) {
      const { from, until, width, lane, lanes, x, y } = this.view;
      g.fillStyle = g.strokeStyle = text;
      g.font = "11px sans-serif";
      g.textBaseline = "top";
      g.globalAlpha = 0.12;
      for (let line = 0; line <= lanes; line += lane < 8 ? 8 : 1) g.fillRect(LEFT, line * lane, width - LEFT, 1);
      const step = SPANS.find((one) => one >= this.span / (width < 500 ? 4 : 8)) || 20;
      for (let at = Math.ceil(from / step) * step; at <= until; at += step) {
        g.globalAlpha = 0.12;
        g.fillRect(x(at), 0, 1, lanes * lane + GAP + STRIP);
        g.globalAlpha = 0.85;
        g.fillText(`${at.toFixed(step < 0.1 ? 2 : step < 1 ? 1 : 0)} s`, x(at) + 2, lanes * lane + GAP + STRIP + 3);
      }
      g.globalAlpha = 0.85;
      for (const engine of engines) {
        g.fillRect(0, y(engine, 0), width, 1);
        g.fillText(engines.length > 1 ? `engine ${engine}` : "slot 0", 2, y(engine, 0) + 4);
      }
      g.fillText("rows", 2, lanes * lane + GAP + 2);
    },
    drawTick(g, tick) {
      const { lane, x, y } = this.view;
      const left = x(tick.start);
      const width = Math.max(1, x(tick.end) - left - (x(tick.end) - left > 3 ? 1 : 0));
      for (const row of tick.rows) {
        const top = y(tick.engine, row.slot) + (lane > 5 ? 1 : 0);
        const height = Math.max(1, lane - (lane > 5 ? 2 : 0));
        const full = tick.steps ? Math.max(0, Math.min(1, row.steps / tick.steps)) * width : width;
        g.fillStyle = this.kinds[row.kind].color;
        g.fillRect(left, top, full, height);
        if (full < width) {
          g.globalAlpha = 0.3;
          g.fillRect(left + full, top, width - full, height);
          g.globalAlpha = 1;
        }
        if (width > 26 && lane > 12) {
          g.fillStyle = this.kinds[row.kind].text;
          g.fillText(`${this.kinds[row.kind].letter}${row.steps}`, left + 3, top + (height - 11) / 2);
        }
      }
      if (this.chosen?.tick === tick) {
        g.strokeStyle = getComputedStyle(this.$el).color;
        g.strokeRect(left - 1, 1, width + 2, this.view.lanes * lane + GAP + STRIP - 2);
      }
    },
    drawStrip(g, text, ticks) {
      const { lane, lanes, x } = this.view;
      const bottom = lanes * lane + GAP + STRIP;
      const most = Math.max(4, ...ticks.map((tick) => Math.max(tick.rows.length, tick.waiting)));
      for (const tick of ticks) {
        const height = (tick.rows.length / most) * (STRIP - 4);
        g.fillStyle = this.kinds[tick.rows.length ? tick.rows[0].kind : 0].color;
        g.fillRect(x(tick.start), bottom - height, Math.max(1, x(tick.end) - x(tick.start)), height);
      }
      g.fillStyle = text;
      for (const tick of ticks) {
        if (tick.waiting) g.fillRect(x(tick.start), bottom - (tick.waiting / most) * (STRIP - 4), Math.max(2, x(tick.end) - x(tick.start)), 2);
      }
      g.globalAlpha = 0.85;
      g.fillText(`${most}`, LEFT + 2, lanes * lane + GAP + 2);
      g.globalAlpha = 1;
    },
    // The tick at a point, and its row there.
    at(event) {
      if (!this.view) return null;
      const box = this.canvas.getBoundingClientRect();
      const { from, width, lane, first, ticks } = this.view;
      const seconds = from + ((event.clientX - box.left - LEFT) / (width - LEFT)) * this.span;
      const line = Math.floor((event.clientY - box.top) / lane);
      const slack = (2 / (width - LEFT)) * this.span;
      let found = null;
      for (const tick of ticks) {
        if (tick.start - slack > seconds || tick.end + slack < seconds) continue;
        const row = tick.rows.findIndex((one) => first.get(tick.engine) + one.slot === line);
        if (row >= 0) return { tick, row };
        found = found || { tick, row: -1 };
      }
      return found;
    },
    hover(event) {
      const found = this.at(event);
      if (found) this.show(found);
    },
    leave() {
      if (this.stopped === null) this.show(null);
    },
    choose(event) {
      const found = this.at(event);
      if (!found) return;
      this.halt();
      this.show(found);
    },
    wheel(event) {
      this.zoom(event.deltaY > 0 ? 1 : -1);
    },
    zoom(by) {
      const index = SPANS.findIndex((one) => one >= this.span) + by;
      if (index >= 0 && index < SPANS.length) this.$emit("span", SPANS[index]);
    },
    halt() {
      if (this.stopped !== null) return;
      this.stop(true);
      this.$emit("stop");
    },
    key(event) {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const zoom = { "+": -1, "-": 1 }[event.key];
      if (zoom) this.zoom(zoom);
      else if (step) this.walk(step);
      else if (down && this.chosen) this.show({ tick: this.chosen.tick, row: this.rowBeside(down) });
      else return;
      event.preventDefault();
    },
    rowBeside(by) {
      const { tick, row } = this.chosen;
      return Math.max(0, Math.min(tick.rows.length - 1, row + by));
    },
    walk(by) {
      this.halt();
      const ticks = this.ticks.filter((tick) => tick.start <= this.stopped);
      if (!ticks.length) return;
      const index = this.chosen ? ticks.indexOf(this.chosen.tick) + by : ticks.length - 1;
      const tick = ticks[Math.max(0, Math.min(ticks.length - 1, index))];
      this.show({ tick, row: 0 });
      // Keep the chosen tick inside of the picture.
      if (tick.start < this.stopped - this.span) this.stopped = tick.start + this.span / 2;
      if (tick.end > this.stopped) this.stopped = tick.end + this.span / 2;
    },
    show(chosen) {
      this.chosen = chosen;
      this.tip.textContent = chosen ? this.describe(chosen) : "";
      this.isDirty = true;
    },
    describe({ tick, row }) {
      const padded = tick.rows.reduce((sum, one) => sum + tick.steps - one.steps, 0);
      const parts = [
        `${tick.kind} tick at ${tick.start.toFixed(3)} s: ${((tick.end - tick.start) * 1000).toFixed(2)} ms, ` +
          `${tick.rows.length} rows of ${tick.steps} time steps, ${padded} padded, ${tick.waiting} waiting`,
      ];
      const one = tick.rows[row];
      if (one) parts.push(`slot ${one.slot}: sequence ${one.sequence}, ${this.kinds[one.kind].name}, ${one.steps} steps`);
      return parts.join(". ");
    },
  },
};

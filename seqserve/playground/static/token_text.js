// Text of which every token is coloured by its probability; the pointer and the keyboard show the alternatives.
const named = { "\n": "new line", " ": "space", "\t": "tab", "": "no text" };
export default {
  template: `
    <div class="sq-text" role="group" :aria-label="label" @mouseover="enter" @focusin="enter" @mouseleave="leave"
         @focusout="leave" @keydown="move">
      <span class="sq-prompt">{{ prompt }}</span><span ref="written"></span>
      <div v-if="shown !== null && tokens[shown]" class="sq-tip" role="tooltip" aria-live="polite" :style="place">
        <div><b>{{ name(tokens[shown].text) }}</b> {{ percent(tokens[shown].logprob) }}</div>
        <div v-for="other in alternatives[shown] || []" class="sq-other">
          <span class="sq-other-name">{{ name(other[0]) }}</span>
          <span class="sq-bar"><span :style="{width: 100 * Math.exp(other[1]) + '%'}"></span></span>
          <span>{{ percent(other[1]) }}</span>
        </div>
        <div v-if="!alternatives.length && note" class="sq-quiet">{{ note }}</div>
      </div>
    </div>`,
  props: { colors: Array, label: String },
  data() {
    return { prompt: "", alternatives: [], note: "", shown: null, place: {} };
  },
  created() {
    // Not reactive: Vue would compare all tokens each time that one is added.
    Object.assign(this, { tokens: [], current: 0 });
  },
  methods: {
    reset(prompt) {
      Object.assign(this, { tokens: [], current: 0 });
      Object.assign(this, { prompt, alternatives: [], note: "", shown: null });
      this.$refs.written.replaceChildren();
    },
    // Add further tokens to those that stand there, all at once: each time, the browser lays the text out.
    append(tokens) {
      const before = this.tokens.length;
      this.tokens.push(...tokens.map(([text, logprob]) => ({ text, logprob })));
      this.$refs.written.append(...this.tokens.slice(before).map((token, place) => this.span(token, before + place)));
    },
    span(token, index) {
      const span = document.createElement("span");
      span.className = "sq-token";
      span.textContent = token.text;
      span.dataset.index = index;
      span.tabIndex = index === this.current ? 0 : -1;
      Object.assign(span.style, this.style(token));
      return span;
    },
    set_alternatives(alternatives, note) {
      this.alternatives = Object.freeze(alternatives);
      this.note = note;
    },
    style(token) {
      const share = token.logprob === null ? 0 : Math.exp(token.logprob);
      const last = this.colors.length - 1;
      const [background, color] = this.colors[Math.min(last, Math.floor(share * this.colors.length))];
      return { background, color };
    },
    name(text) {
      return named[text] ?? text;
    },
    percent(logprob) {
      if (logprob === null) return "";
      const share = 100 * Math.exp(logprob);
      return share >= 0.1 ? share.toFixed(1) + " %" : "below 0.1 %";
    },
    enter(event) {
      const span = event.target.closest(".sq-token");
      if (!span) return;
      this.shown = Number(span.dataset.index);
      if (event.type === "focusin") this.choose(span);
      const box = span.getBoundingClientRect();
      const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - 228));
      this.place = { left: left + "px", top: box.bottom + 4 + "px" };
    },
    // Make a token the one that Tab goes to.
    choose(span) {
      this.$refs.written.children[this.current].tabIndex = -1;
      span.tabIndex = 0;
      this.current = this.shown;
    },
    leave() {
      this.shown = null;
    },
    move(event) {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || !this.tokens.length) return;
      const next = Math.max(0, Math.min(this.tokens.length - 1, this.current + steps[event.key]));
      this.$refs.written.children[next].focus();
      event.preventDefault();
    },
  },
};

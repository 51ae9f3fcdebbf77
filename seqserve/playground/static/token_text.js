// Text of which every token is coloured by its probability; the pointer and the keyboard show the alternatives.
const named = { "\n": "new line", " ": "space", "\t": "tab", "": "no text" };
export default {
  template: `
    <div class="sq-text" role="group" :aria-label="label" @mouseover="enter" @focusin="enter" @mouseleave="leave"
         @focusout="leave" @keydown="move">
      <span class="sq-prompt">{{ prompt }}</span><span v-for="(one, index) in tokens" :key="index"
        v-memo="[one, index === current]" class="sq-token" :data-index="index" :tabindex="index === current ? 0 : -1"
        :style="style(one)">{{ one.text }}</span>
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
    return { prompt: "", tokens: [], alternatives: [], note: "", current: 0, shown: null, place: {} };
  },
  methods: {
    reset(prompt) {
      Object.assign(this, { prompt, tokens: [], alternatives: [], note: "", current: 0, shown: null });
    },
    append(tokens) {
      this.tokens.push(...tokens.map(([text, logprob]) => Object.freeze({ text, logprob })));
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
      if (event.type === "focusin") this.current = this.shown;
      const box = span.getBoundingClientRect();
      const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - 228));
      this.place = { left: left + "px", top: box.bottom + 4 + "px" };
    },
    leave() {
      this.shown = null;
    },
    move(event) {
      const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in steps) || !this.tokens.length) return;
      const next = Math.max(0, Math.min(this.tokens.length - 1, this.current + steps[event.key]));
      this.$el.querySelector(`[data-index="${next}"]`).focus();
      event.preventDefault();
    },
  },
};

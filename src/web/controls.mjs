// What a viewer sets: how lines look on the stage, how one's own are to look, what is typed. Owns the form elements; tells the page
// by callbacks.

/** The stage's settings: calls `changed({on, share, opacity, still})` at once and whenever they change. */
export function stageControls(root, changed) {
  const on = root.querySelector('#flying');
  const density = root.querySelector('#density');
  const opacity = root.querySelector('#opacity');
  const stillness = window.matchMedia('(prefers-reduced-motion: reduce)');
  const tell = () => {
    // What a screen reader says in place of a bare number.
    density.setAttribute('aria-valuetext', `${density.value} percent of the stage`);
    opacity.setAttribute('aria-valuetext', `${opacity.value} percent`);
    changed({
      on: on.checked,
      share: Number(density.value) / 100,
      opacity: Number(opacity.value) / 100,
      still: stillness.matches,
    });
  };
  for (const control of [on, density, opacity]) control.addEventListener('input', tell);
  stillness.addEventListener('change', tell);
  tell();
}

/** The line being written. */
export class Composer {
  #form;
  #input;
  #problem;
  #problemTimer = 0;

  /** `say(text, style)` answers whether the line went out. */
  constructor(form, problem, say) {
    this.#form = form;
    this.#input = form.elements.text;
    this.#problem = problem;
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const text = this.#input.value.trim();
      if (text === '') return;
      if (say(text, this.#style())) {
        this.#input.value = '';
        this.#clear();
      } else {
        this.problem('There is no connection to a room just now; the line stays here.');
      }
    });
    this.#input.addEventListener('input', () => this.#clear());
  }

  /** Gives back a line that was not said, unless another is being written. */
  giveBack(text) {
    if (this.#input.value === '') this.#input.value = text;
  }

  /** Shows why a line was not said; after `retry_after_ms`, that it may be said now. */
  problem(sentence, retry_after_ms) {
    this.#clear();
    if (retry_after_ms === undefined) {
      this.#problem.textContent = sentence;
      return;
    }
    const seconds = Math.max(0.1, retry_after_ms / 1000);
    this.#problem.textContent = `${sentence} – again in ${seconds < 10 ? seconds.toFixed(1) : Math.ceil(seconds)} s`;
    this.#problemTimer = setTimeout(() => this.#clear(), Math.max(1_500, retry_after_ms));
  }

  #clear() {
    clearTimeout(this.#problemTimer);
    this.#problem.textContent = '';
  }

  #style() {
    const { color, mode, size } = this.#form.elements;
    return { color: color.value, mode: mode.value, size: Number(size.value) };
  }
}

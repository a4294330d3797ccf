// Exact decimal numbers as the wire writes them: text with up to six decimals. They are compared and
// subtracted as whole numbers of 10^-6 (BigInt), so that nothing is rounded on its way to the screen.

const SCALE = 1_000_000n;
const PATTERN = /^(-?)(\d+)(?:\.(\d{1,6}))?$/;

const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });

/** `"-1.25"` to `-1250000n`. Throws a RangeError for what is no decimal of at most six places. */
export function toMicros(text) {
  const match = PATTERN.exec(text);
  if (!match) throw new RangeError(`not a decimal with at most six places: ${text}`);
  const micros = BigInt(match[2]) * SCALE + BigInt((match[3] ?? '').padEnd(6, '0'));
  return match[1] ? -micros : micros;
}

/** `-1250000n` to `"-1.25"`, with at least `places` decimals and as many more as the value needs. */
export function fromMicros(micros, places = 0) {
  const size = micros < 0n ? -micros : micros;
  let fraction = String(size % SCALE).padStart(6, '0');
  let length = 6;
  while (length > places && fraction[length - 1] === '0') length -= 1;
  fraction = fraction.slice(0, length);
  return `${micros < 0n ? '-' : ''}${size / SCALE}${fraction ? `.${fraction}` : ''}`;
}

/** How many decimals a text has. */
export function places(text) {
  const point = text.indexOf('.');
  return point < 0 ? 0 : text.length - point - 1;
}

/** A text with at least so many decimals: `"95.9"` and 2 give `"95.90"`. */
export function padded(text, wanted) {
  const missing = wanted - places(text);
  if (missing <= 0) return text;
  return `${text}${missing === wanted ? '.' : ''}${'0'.repeat(missing)}`;
}

/** `last - first`, with a sign, and with as many decimals as the longer of the two. */
export function change(first, last) {
  const micros = toMicros(last) - toMicros(first);
  const text = fromMicros(micros, Math.max(places(first), places(last)));
  return micros > 0n ? `+${text}` : text;
}

/** By how much `last` differs from `first`, in per cent with two decimals and a sign; "" when `first` is 0. */
export function changePercent(first, last) {
  const base = toMicros(first);
  if (base === 0n) return '';
  const size = base < 0n ? -base : base;
  const difference = toMicros(last) - base;
  const rounded = ((difference < 0n ? -difference : difference) * 10_000n + size / 2n) / size; // of 1/100 %
  const text = `${rounded / 100n}.${String(rounded % 100n).padStart(2, '0')}%`;
  if (rounded === 0n) return text;
  return difference < 0n ? `-${text}` : `+${text}`;
}

/** Per cent for a narrow column: of a hundred and more one decimal, of a thousand and more none, of a million in short. */
export function narrowPercent(text) {
  const size = Math.abs(parseFloat(text));
  if (!(size >= 100)) return text;
  const sign = text.startsWith('-') ? '-' : '+';
  if (size >= 1e5) return `${sign}${SHORT.format(size)}%`;
  return `${sign}${size.toLocaleString('en', { maximumFractionDigits: size < 1000 ? 1 : 0 })}%`;
}

/** The sign of `last - first`: -1, 0 or 1. */
export function direction(first, last) {
  const difference = toMicros(last) - toMicros(first);
  return difference > 0n ? 1 : difference < 0n ? -1 : 0;
}

/** A sum, as text. */
export function add(first, second) {
  return fromMicros(toMicros(first) + toMicros(second), Math.max(places(first), places(second)));
}

/** The whole part in groups of three: `"1234567.50"` to `"1,234,567.50"`. */
export function grouped(text) {
  const point = text.indexOf('.');
  const whole = point < 0 ? text : text.slice(0, point);
  return whole.replace(/\B(?=(\d{3})+$)/g, ',') + (point < 0 ? '' : text.slice(point));
}

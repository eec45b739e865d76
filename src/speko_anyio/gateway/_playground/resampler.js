// Sample rate conversion in a stream: a sinc under a Hann window, cut at the lower of the two rates' bandwidths.
// The device decides its own rate, and not every browser converts for a context of another one.

const LOBES = 12; // zero crossings on each side of the sinc: about 60 dB of rejection, 0.5 ms at 24 kHz

export class Resampler {
  constructor(from, to) {
    this.step = from / to;
    this.cutoff = Math.min(1, to / from);
    this.reach = Math.ceil(LOBES / this.cutoff);
    this.reset();
  }

  reset() {
    this.past = new Float32Array(2 * this.reach); // what the kernel still looks back at
    this.position = this.reach; // of the next output, in samples of `past` and what follows it
  }

  // Float32 samples in, Float32 samples out; how many depends on where the last call ended.
  process(input) {
    if (this.step === 1) return input;
    const samples = new Float32Array(this.past.length + input.length);
    samples.set(this.past);
    samples.set(input, this.past.length);
    const last = samples.length - this.reach;
    const output = new Float32Array(Math.max(0, Math.ceil((last - this.position) / this.step)));
    for (let i = 0; i < output.length; i++, this.position += this.step) {
      const centre = Math.floor(this.position);
      let sum = 0;
      for (let k = centre - this.reach + 1; k <= centre + this.reach; k++) {
        const x = (this.position - k) * this.cutoff;
        if (Math.abs(x) >= LOBES) continue;
        const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
        sum += samples[k] * sinc * (0.5 + 0.5 * Math.cos((Math.PI * x) / LOBES));
      }
      output[i] = sum * this.cutoff;
    }
    const kept = 2 * this.reach;
    const dropped = samples.length - kept;
    this.past = samples.slice(dropped);
    this.position -= dropped;
    return output;
  }
}

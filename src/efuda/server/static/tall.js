/* Scrolling through more than a browser can be high: Chromium stops at 33.5 M pixels, Firefox at 17.9 M.

   const tall = new Tall(port, spacer);  tall.height = 40_000_000;  tall.top = 12_345_678;
   element.y = wanted - tall.offset      where a thing is put inside the spacer

   Both ends, two million pixels each, are one to one; what lies between is squeezed. A step scrolls exactly anywhere, a
   jump (the bar dragged) lands in proportion. */

const LIMIT = 8_000_000;
const END = LIMIT / 4;
const DRIFT = LIMIT / 100; // how far the bar may be from its place before it is put right

export class Tall {
  constructor(port, spacer) {
    Object.assign(this, { port, spacer, whole: 0, real: 0, offset: 0, last: 0 });
  }

  get height() { return this.whole; }

  set height(pixels) {
    this.whole = pixels;
    this.real = Math.min(pixels, LIMIT);
    this.spacer.style.height = `${this.real}px`;
    if (this.whole <= this.real) this.offset = 0;
    this.last = this.port.scrollTop;
  }

  get top() { return this.port.scrollTop + this.offset; }

  set top(wanted) {
    const top = Math.max(0, Math.min(wanted, this.whole - this.port.clientHeight));
    const place = Math.round(this.squeezed(top));
    this.port.scrollTop = place;
    this.offset = this.whole > this.real ? top - place : 0;
    this.last = this.port.scrollTop;
  }

  /** To be called when the port was scrolled. */
  scrolled() {
    const place = this.port.scrollTop;
    if (this.whole > this.real) {
      if (Math.abs(place - this.last) > 3 * this.port.clientHeight) this.offset = this.stretched(place) - place;
      else if (Math.abs(this.squeezed(place + this.offset) - place) > DRIFT) this.top = place + this.offset;
    }
    this.last = this.port.scrollTop;
  }

  squeezed(top) {
    if (this.whole <= this.real || top <= END) return top;
    if (top >= this.whole - END) return this.real - (this.whole - top);
    return END + ((top - END) * (this.real - 2 * END)) / (this.whole - 2 * END);
  }

  stretched(place) {
    if (place <= END) return place;
    if (place >= this.real - END) return this.whole - (this.real - place);
    return END + ((place - END) * (this.whole - 2 * END)) / (this.real - 2 * END);
  }
}

const CHUNK_BITS = 16;
const CHUNK = 2 ** CHUNK_BITS;

const CELLS = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f64: Float64Array } as const;

/** Numbers of one width that grow without being copied: what a ledger of millions of calls is kept in. */
export class Column {
  readonly #make: () => Uint8Array | Uint16Array | Uint32Array | Float64Array;
  readonly #chunks: (Uint8Array | Uint16Array | Uint32Array | Float64Array)[] = [];

  constructor(width: keyof typeof CELLS) {
    this.#make = () => new CELLS[width](CHUNK);
  }

  /** 0 where nothing was set. */
  at(index: number): number {
    return this.#chunks[index >>> CHUNK_BITS]?.[index % CHUNK] ?? 0;
  }

  set(index: number, value: number): void {
    const place = index >>> CHUNK_BITS;
    while (this.#chunks.length <= place) this.#chunks.push(this.#make());
    (this.#chunks[place] as Float64Array)[index % CHUNK] = value;
  }
}

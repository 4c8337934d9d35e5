"use strict";
// A QR code (ISO/IEC 18004) of bytes at level L, of versions 1 to 20: what a WireGuard file needs, and no more. Drawn here, because
// the private key in it must not leave the page.
const QR = (() => {
  const ECC = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28];
  const BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8];
  const range = (n) => [...Array(n).keys()];

  const codewords = (version) => {
    const aligned = version < 2 ? 0 : Math.floor(version / 7) + 2;
    const align = aligned && (25 * aligned - 10) * aligned - 55;
    return Math.floor(((16 * version + 128) * version + 64 - align - (version < 7 ? 0 : 36)) / 8);
  };
  const capacity = (version) => codewords(version) - ECC[version - 1] * BLOCKS[version - 1];

  // In GF(2^8) modulo 0x11d.
  const times = (a, b) => {
    let product = 0;
    for (let bit = 7; bit >= 0; bit--) product = (product << 1) ^ ((product >>> 7) * 0x11d) ^ (((b >>> bit) & 1) * a);
    return product;
  };
  const divisor = (degree) => {
    const result = [...Array(degree - 1).fill(0), 1];
    let root = 1;
    for (let turn = 0; turn < degree; turn++) {
      for (let at = 0; at < degree; at++) result[at] = times(result[at], root) ^ (result[at + 1] ?? 0);
      root = times(root, 2);
    }
    return result;
  };
  const remainder = (data, by) => {
    const result = by.map(() => 0);
    for (const byte of data) {
      const factor = byte ^ result.shift();
      result.push(0);
      by.forEach((coefficient, at) => (result[at] ^= times(coefficient, factor)));
    }
    return result;
  };

  const dataOf = (bytes, version) => {
    const bits = [];
    const put = (value, count) => range(count).forEach((at) => bits.push((value >>> (count - 1 - at)) & 1));
    put(4, 4);
    put(bytes.length, version < 10 ? 8 : 16);
    bytes.forEach((byte) => put(byte, 8));
    put(0, Math.min(4, capacity(version) * 8 - bits.length));
    while (bits.length % 8) bits.push(0);
    const data = range(bits.length / 8).map((at) => parseInt(bits.slice(8 * at, 8 * at + 8).join(""), 2));
    for (let pad = 0xec; data.length < capacity(version); pad ^= 0xec ^ 0x11) data.push(pad);
    return data;
  };

  const interleaved = (data, version) => {
    const [ecc, count, all] = [ECC[version - 1], BLOCKS[version - 1], codewords(version)];
    const by = divisor(ecc);
    const shorter = count - (all % count);
    let from = 0;
    const blocks = range(count).map((at) => {
      const part = data.slice(from, (from += Math.floor(all / count) - ecc + (at < shorter ? 0 : 1)));
      return { part, check: remainder(part, by) };
    });
    const longest = blocks.at(-1).part.length;
    return [
      ...range(longest).flatMap((at) => blocks.filter(({ part }) => at < part.length).map(({ part }) => part[at])),
      ...range(ecc).flatMap((at) => blocks.map(({ check }) => check[at])),
    ];
  };

  const alignments = (version, size) => {
    if (version === 1) return [];
    const count = Math.floor(version / 7) + 2;
    const step = Math.floor((version * 8 + count * 3 + 5) / (count * 4 - 4)) * 2;
    return [6, ...range(count - 1).map((at) => size - 7 - step * (count - 2 - at))];
  };

  const MASKS = [
    (x, y) => (x + y) % 2,
    (x, y) => y % 2,
    (x) => x % 3,
    (x, y) => (x + y) % 3,
    (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2,
    (x, y) => ((x * y) % 2) + ((x * y) % 3),
    (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2,
    (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2,
  ];

  // Long runs and blocks of one colour are hard to read.
  const penalty = (grid) => {
    let sum = 0;
    const lines = [...grid, ...grid.map((_, x) => grid.map((row) => row[x]))];
    for (const line of lines) {
      for (const run of line.join("").match(/0+|1+/g)) if (run.length >= 5) sum += run.length - 2;
    }
    for (let y = 1; y < grid.length; y++) {
      for (let x = 1; x < grid.length; x++) {
        const four = grid[y][x] + grid[y - 1][x] + grid[y][x - 1] + grid[y - 1][x - 1];
        if (four % 4 === 0) sum += 3;
      }
    }
    return sum;
  };

  const frame = (version) => {
    const size = 17 + 4 * version;
    const grid = range(size).map(() => Array(size).fill(undefined));
    const set = (x, y, dark) => {
      if (x >= 0 && y >= 0 && x < size && y < size) grid[y][x] = dark ? 1 : 0;
    };
    const square = (x, y, radius, light) => {
      for (let dy = -radius; dy <= radius; dy++) {
        for (let dx = -radius; dx <= radius; dx++) {
          set(x + dx, y + dy, !light.includes(Math.max(Math.abs(dx), Math.abs(dy))));
        }
      }
    };
    range(size).forEach((at) => [set(6, at, at % 2 === 0), set(at, 6, at % 2 === 0)]);
    [[3, 3], [size - 4, 3], [3, size - 4]].forEach(([x, y]) => square(x, y, 4, [2, 4]));
    const places = alignments(version, size);
    const last = places.length - 1;
    places.forEach((x, i) => places.forEach((y, j) => {
      const isFinder = (i === 0 && j === 0) || (i === 0 && j === last) || (i === last && j === 0);
      if (!isFinder) square(x, y, 2, [1]);
    }));
    if (version >= 7) {
      let rest = version;
      for (let turn = 0; turn < 12; turn++) rest = (rest << 1) ^ ((rest >>> 11) * 0x1f25);
      const bits = (version << 12) | rest;
      for (let at = 0; at < 18; at++) {
        const [a, b] = [size - 11 + (at % 3), Math.floor(at / 3)];
        set(a, b, (bits >>> at) & 1);
        set(b, a, (bits >>> at) & 1);
      }
    }
    return { grid, set, size };
  };

  const format = ({ set, size }, mask) => {
    const data = (1 << 3) | mask;
    let rest = data;
    for (let turn = 0; turn < 10; turn++) rest = (rest << 1) ^ ((rest >>> 9) * 0x537);
    const bits = ((data << 10) | rest) ^ 0x5412;
    const bit = (at) => (bits >>> at) & 1;
    for (let at = 0; at < 6; at++) set(8, at, bit(at));
    set(8, 7, bit(6));
    set(8, 8, bit(7));
    set(7, 8, bit(8));
    for (let at = 9; at < 15; at++) set(14 - at, 8, bit(at));
    for (let at = 0; at < 8; at++) set(size - 1 - at, 8, bit(at));
    for (let at = 8; at < 15; at++) set(8, size - 15 + at, bit(at));
    set(8, size - 8, 1);
  };

  const drawn = (words, version, mask) => {
    const code = frame(version);
    format(code, mask);
    const { grid, size } = code;
    let at = 0;
    for (let right = size - 1; right >= 1; right -= 2) {
      if (right === 6) right = 5;
      for (let step = 0; step < size; step++) {
        const y = (right + 1) & 2 ? step : size - 1 - step;
        for (const x of [right, right - 1]) {
          if (grid[y][x] !== undefined) continue;
          const bit = at < words.length * 8 ? (words[at >>> 3] >>> (7 - (at & 7))) & 1 : 0;
          grid[y][x] = bit ^ (MASKS[mask](x, y) === 0 ? 1 : 0);
          at++;
        }
      }
    }
    return grid;
  };

  // Rows of 0 and 1; undefined where the text is too long.
  return (text) => {
    const bytes = [...new TextEncoder().encode(text)];
    const version = range(20).map((at) => at + 1).find((version) => bytes.length + (version < 10 ? 2 : 3) <= capacity(version));
    if (!version) return undefined;
    const words = interleaved(dataOf(bytes, version), version);
    const grids = range(8).map((mask) => drawn(words, version, mask));
    return grids.reduce((best, grid) => (penalty(grid) < penalty(best) ? grid : best));
  };
})();

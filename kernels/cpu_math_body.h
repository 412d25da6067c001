#pragma once

// The inner loops, over the sixteen Lanes that the including file defines. Included by exactly one
// cpu_math_*.cc each, after its Lanes; everything is in an unnamed namespace. No standard library
// templates here: their code would carry this file's instruction set to others.

#include "kernels/cpu_math_variants.h"

namespace triptych::kernels {
namespace {

// --- Sums, tails, e^x ------------------------------------------------------------------------

// The first n < 16 lanes from p, zeros behind them.
inline Lanes LoadPart(const float* p, int64_t n) {
  float v[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return Load(v);
}
inline Lanes LoadPart(const uint16_t* p, int64_t n) {
  uint16_t v[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) v[i] = p[i];
  return Load(v);
}

inline void StorePart(float* p, Lanes x, int64_t n) {
  float v[kLanes];
  Store(v, x);
  for (int64_t i = 0; i < n; ++i) p[i] = v[i];
}

// y[i] = fn(x[i]) over n elements, for any n.
template <typename Fn>
inline void Map(const float* x, int64_t n, float* y, Fn fn) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(y + i, fn(Load(x + i)));
  if (i < n) StorePart(y + i, fn(LoadPart(x + i, n - i)), n - i);
}

// Two-constant reduction by ln 2 and the minimax polynomial of Cephes expf: within 2 ulp. e^0 is 1
// exactly; below -87 it is 0.
inline Lanes Exp(Lanes x) {
  // Min and Max give their second operand where one is NaN: so a NaN gets through.
  const Lanes clamped = Min(Set(88.0f), Max(Set(-87.0f), x));
  const Lanes n = Round(Mul(clamped, Set(1.44269504f)));
  Lanes r = Fma(n, Set(-0.693359375f), clamped);
  r = Fma(n, Set(2.12194440e-4f), r);
  Lanes p = Set(1.9875691500e-4f);
  p = Fma(p, r, Set(1.3981999507e-3f));
  p = Fma(p, r, Set(8.3334519073e-3f));
  p = Fma(p, r, Set(4.1665795894e-2f));
  p = Fma(p, r, Set(1.6666665459e-1f));
  p = Fma(p, r, Set(5.0000001201e-1f));
  const Lanes y = Add(Fma(p, Mul(r, r), r), Set(1.0f));
  return SelectLess(x, Set(-87.0f), Set(0.0f), Mul(y, PowerOfTwo(n)));
}

// --- Matrix products -------------------------------------------------------------------------

// B of one tile: element (k, panel, lane) at b[k * k_stride + panel * panel_stride + lane].
template <typename B>
struct PanelView {
  const B* b;
  int64_t k_stride;
  int64_t panel_stride;
};

enum class Start { kZero, kFromC };

// Rows of a panel (32 bytes each) that a product of one row asks for early.
constexpr int64_t kAheadRows = 32;

// acc[m][p] += sum over k of a[m][k] * B[k][p]. Every loop over m and p must unroll: otherwise GCC
// 12 keeps the accumulators in memory.
template <int M, int P, typename B>
inline __attribute__((always_inline)) void Accumulate(const float* a, int64_t a_stride,
                                                      const PanelView<B>& view, int64_t k,
                                                      Lanes (&acc)[M][P]) {
  const B* b = view.b;
  // A single row does nothing but read weights, in P streams that are each too short for the
  // processor to run ahead of: so it is told, a kilobyte early, at the end about the next P panels.
  const B* ahead = b + kAheadRows * view.k_stride;
  for (int64_t i = 0; i < k; ++i, b += view.k_stride, ahead += view.k_stride) {
    if constexpr (M == 1 && sizeof(B) == sizeof(uint16_t)) {
      if (i + kAheadRows == k) ahead += (P - 1) * view.panel_stride;
#pragma GCC unroll 16
      for (int p = 0; p < P; p += 2) {
        __builtin_prefetch(ahead + (p + (i & 1)) * view.panel_stride);
      }
    }
    Lanes w[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) w[p] = Load(b + p * view.panel_stride);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      const Lanes x = Set(a[m * a_stride + i]);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) acc[m][p] = Fma(x, w[p], acc[m][p]);
    }
  }
}

template <int M, int P, Start kStart, typename B>
__attribute__((noinline)) void MultiplyTile(const float* a, int64_t a_stride,
                                            const PanelView<B>& view, int64_t k, float* c,
                                            int64_t c_stride) {
  Lanes acc[M][P];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      acc[m][p] = kStart == Start::kZero ? Set(0.0f) : Load(c + m * c_stride + p * kLanes);
    }
  }
  Accumulate<M, P, B>(a, a_stride, view, k, acc);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) Store(c + m * c_stride + p * kLanes, acc[m][p]);
  }
}

// Calls fn.template operator()<M>() for rows in [1, kMaxTileRows].
template <int M = kMaxTileRows, typename Fn>
inline void WithRows(int64_t rows, const Fn& fn) {
  if (rows >= M) {
    fn.template operator()<M>();
  } else if constexpr (M > 1) {
    WithRows<M - 1>(rows, fn);
  }
}

// Panels [panel, panels) of M rows: P at once, then fewer; a lone panel's chain of sums would wait
// for itself.
template <int M, int P, Start kStart, typename B>
inline void MultiplyPanels(const float* a, int64_t a_stride, const PanelView<B>& view,
                           int64_t panel, int64_t panels, int64_t k, float* c, int64_t c_stride) {
  for (; panel + P <= panels; panel += P) {
    const PanelView<B> part{view.b + panel * view.panel_stride, view.k_stride, view.panel_stride};
    MultiplyTile<M, P, kStart, B>(a, a_stride, part, k, c + panel * kLanes, c_stride);
  }
  if constexpr (P > 1) {
    MultiplyPanels<M, P / 2, kStart, B>(a, a_stride, view, panel, panels, k, c, c_stride);
  }
}

// c[rows, 16 * panels] (whole panels, padded storage) = or += a * B.
template <Start kStart, typename B>
void MultiplyPadded(const float* a, int64_t a_stride, int64_t rows, const PanelView<B>& view,
                    int64_t panels, int64_t k, float* c, int64_t c_stride) {
  for (int64_t row = 0; row < rows;) {
    const int64_t left = rows - row;
    const int64_t take = left < kMaxTileRows ? left : kMaxTileRows;
    WithRows(take, [&]<int M>() {
      MultiplyPanels<M, PanelsAtOnce(M), kStart, B>(a + row * a_stride, a_stride, view, 0, panels,
                                                    k, c + row * c_stride, c_stride);
    });
    row += take;
  }
}

// bias and residual of 16 columns of one row, then out to c.
inline void FinishColumns(const GemmCall& call, Lanes sum, int64_t row, int64_t column) {
  const int64_t left = call.columns - column;
  const int64_t at = row * call.c_stride + column;
  if (left >= kLanes) {
    if (call.bias != nullptr) sum = Add(sum, Load(call.bias + column));
    if (call.residual != nullptr) sum = Add(sum, Load(call.residual + at));
    Store(call.c + at, sum);
  } else {
    if (call.bias != nullptr) sum = Add(sum, LoadPart(call.bias + column, left));
    if (call.residual != nullptr) sum = Add(sum, LoadPart(call.residual + at, left));
    StorePart(call.c + at, sum, left);
  }
}

template <int M, int P, typename B>
__attribute__((noinline)) void GemmTile(const GemmCall& call, int64_t row, int64_t panel) {
  const PanelView<B> view{static_cast<const B*>(call.panels) + panel * call.k * kLanes, kLanes,
                          call.k * kLanes};
  Lanes acc[M][P];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) acc[m][p] = Set(0.0f);
  }
  Accumulate<M, P, B>(call.a + row * call.a_stride, call.a_stride, view, call.k, acc);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) FinishColumns(call, acc[m][p], row + m, (panel + p) * kLanes);
  }
}

// All rows against panels [panel, panel + P): the panels stay in the first-level cache.
template <int P, typename B>
inline void GemmPanels(const GemmCall& call, int64_t first_row, int64_t panel) {
  for (int64_t row = first_row; row < call.rows;) {
    const int64_t left = call.rows - row;
    const int64_t take = left < kMaxTileRows ? left : kMaxTileRows;
    WithRows(take, [&]<int M>() {
      if constexpr (PanelsAtOnce(M) >= P) GemmTile<M, P, B>(call, row, panel);
      if constexpr (PanelsAtOnce(M) < P) {
        for (int p = 0; p < P; ++p) GemmTile<M, 1, B>(call, row, panel + p);
      }
    });
    row += take;
  }
}

template <int P, typename B>
inline void GemmFrom(const GemmCall& call, int64_t panel, int64_t panels) {
  for (; panel + P <= panels; panel += P) GemmPanels<P, B>(call, 0, panel);
  if constexpr (P > 1) GemmFrom<P / 2, B>(call, panel, panels);
}

template <typename B>
void GemmOf(const GemmCall& call) {
  const int64_t tile = call.rows < kMaxTileRows ? call.rows : kMaxTileRows;
  WithRows(tile, [&]<int M>() {
    GemmFrom<PanelsAtOnce(M), B>(call, 0, (call.columns + kLanes - 1) / kLanes);
  });
}

void Gemm(const GemmCall& call) {
  if (call.rows == 0) return;
  if (call.panel_type == DType::kBFloat16) {
    GemmOf<uint16_t>(call);
  } else {
    GemmOf<float>(call);
  }
}

// --- Attention -------------------------------------------------------------------------------

// Keys [first, first + count) as columns of [head_dim][16]; absent keys are zeros.
template <typename T>
inline void TransposeKeys(const AttentionCall& call, int32_t first, int count, float* out) {
  for (int d = 0; d < call.head_dim; d += kLanes) {
    const int width = call.head_dim - d < kLanes ? call.head_dim - d : kLanes;
    Lanes rows[kLanes];
    for (int j = 0; j < kLanes; ++j) {
      const T* key = j < count ? static_cast<const T*>(call.keys[first + j]) + d : nullptr;
      rows[j] = key == nullptr ? Set(0.0f) : width == kLanes ? Load(key) : LoadPart(key, width);
    }
    Transpose(rows);
    for (int i = 0; i < width; ++i) Store(out + (d + i) * kLanes, rows[i]);
  }
}

// Values [first, first + count) as a view of [count][padded head_dim]: where they lie, when they
// lie evenly and in whole vectors, else copied to `copy`.
template <typename T, typename Fn>
inline void WithValues(const AttentionCall& call, int32_t first, int count, float* copy, Fn fn) {
  const int64_t padded = PaddedLanes(call.head_dim);
  const void* const* values = call.values + first;
  const T* base = static_cast<const T*>(values[0]);
  const int64_t stride = count > 1 ? static_cast<const T*>(values[1]) - base : 0;
  bool even = call.head_dim == padded;
  for (int j = 2; j < count; ++j) even = even && values[j] == base + j * stride;
  if (even) return fn(PanelView<T>{base, stride, kLanes});
  for (int j = 0; j < count; ++j) {
    for (int d = 0; d < call.head_dim; d += kLanes) {
      const int width = call.head_dim - d < kLanes ? call.head_dim - d : kLanes;
      const T* from = static_cast<const T*>(values[j]) + d;
      Store(copy + j * padded + d, width == kLanes ? Load(from) : LoadPart(from, width));
    }
  }
  fn(PanelView<float>{copy, padded, kLanes});
}

// Turns the scores of one tile into weights, and rescales what the row has gathered when its
// maximum rises. Lanes at or beyond `visible` are masked.
inline void SoftmaxTile(float* scores, int64_t visible, float scale, int64_t padded, float* state,
                        float* output) {
  static const float kLaneIndex[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const Lanes masked = SelectLess(Load(kLaneIndex), Set(static_cast<float>(visible)),
                                  Mul(Load(scores), Set(scale)), Set(-__builtin_inff()));
  const float tile_max = HorizontalMax(masked);
  if (tile_max > state[0]) {
    float factor[kLanes];
    Store(factor, Exp(Set(state[0] - tile_max)));
    for (int64_t d = 0; d < padded; d += kLanes) {
      Store(output + d, Mul(Load(output + d), Set(factor[0])));
    }
    state[0] = tile_max;
    state[1] *= factor[0];
  }
  const Lanes weights = Exp(Sub(masked, Set(state[0])));
  Store(scores, weights);
  state[1] += HorizontalSum(weights);
}

// Keys of the tile [first, first + count) that a row sees.
inline int VisibleKeys(const AttentionCall& call, int row, int32_t first, int count) {
  const int32_t seen = call.limits[row] - first;
  return seen < count ? seen : count;
}

// Where the parts of a call's scratch lie.
struct AttentionParts {
  float* keys;    // [kTilesAtOnce][head_dim][16]
  float* values;  // [16][padded head_dim]
  float* scores;  // [rows][kTilesAtOnce][16]
  float* states;  // [rows][2]: the maximum so far, and the sum of weights relative to it
};

// Scores to weights and the weighted values into the output, for one tile of keys.
template <typename T>
inline void AttendTile(const AttentionCall& call, const AttentionParts& parts, int tile,
                       int32_t first, int first_row) {
  constexpr int kStride = kTilesAtOnce * kLanes;
  const int64_t padded = PaddedLanes(call.head_dim);
  const int count = call.num_keys - first < kLanes ? call.num_keys - first : kLanes;
  float* scores = parts.scores + tile * kLanes;
  while (first_row < call.rows && call.limits[first_row] <= first) ++first_row;
  if (first_row == call.rows) return;
  for (int row = first_row; row < call.rows; ++row) {
    SoftmaxTile(scores + row * kStride, call.limits[row] - first, call.scale, padded,
                parts.states + 2 * row, call.output + row * padded);
  }
  WithValues<T>(call, first, count, parts.values, [&](const auto& view) {
    for (int row = first_row; row < call.rows;) {
      // A masked key weighs 0, but 0 times a NaN is one: rows are multiplied by what they see.
      const int visible = VisibleKeys(call, row, first, count);
      int end = row + 1;
      while (end < call.rows && VisibleKeys(call, end, first, count) == visible) ++end;
      MultiplyPadded<Start::kFromC>(scores + row * kStride, kStride, end - row, view,
                                    padded / kLanes, visible, call.output + row * padded, padded);
      row = end;
    }
  });
}

template <typename T>
void AttendOf(const AttentionCall& call) {
  const int64_t padded = PaddedLanes(call.head_dim), tile_floats = kLanes * padded;
  AttentionParts parts{.keys = call.scratch};
  parts.values = parts.keys + kTilesAtOnce * tile_floats;
  parts.scores = parts.values + tile_floats;
  parts.states = parts.scores + call.rows * kTilesAtOnce * kLanes;
  for (int row = 0; row < call.rows; ++row) {
    parts.states[2 * row] = -__builtin_inff();
    parts.states[2 * row + 1] = 0.0f;
    for (int64_t d = 0; d < padded; d += kLanes) Store(call.output + row * padded + d, Set(0.0f));
  }
  // Few rows alone would wait for their own chains of sums: they take several tiles at once.
  const int at_once = call.rows <= kMaxTileRows ? kTilesAtOnce : 1;
  int first_row = 0;  // Rows before it see no key of this or a later tile.
  for (int32_t first = 0; first < call.num_keys; first += at_once * kLanes) {
    while (first_row < call.rows && call.limits[first_row] <= first) ++first_row;
    if (first_row == call.rows) break;
    int tiles = 0;
    for (; tiles < at_once && first + tiles * kLanes < call.num_keys; ++tiles) {
      const int32_t begin = first + tiles * kLanes;
      const int count = call.num_keys - begin < kLanes ? call.num_keys - begin : kLanes;
      TransposeKeys<T>(call, begin, count, parts.keys + tiles * tile_floats);
    }
    MultiplyPadded<Start::kZero>(
        call.queries + int64_t{first_row} * call.head_dim, call.head_dim, call.rows - first_row,
        PanelView<float>{parts.keys, kLanes, tile_floats}, tiles, call.head_dim,
        parts.scores + first_row * kTilesAtOnce * kLanes, kTilesAtOnce * kLanes);
    for (int tile = 0; tile < tiles; ++tile) {
      AttendTile<T>(call, parts, tile, first + tile * kLanes, first_row);
    }
  }
  for (int row = 0; row < call.rows; ++row) {
    const Lanes sum = Set(parts.states[2 * row + 1]);
    float* out = call.output + row * padded;
    for (int64_t d = 0; d < padded; d += kLanes) Store(out + d, Div(Load(out + d), sum));
  }
}

void Attend(const AttentionCall& call) {
  if (call.type == DType::kFloat32) {
    AttendOf<float>(call);
  } else {
    AttendOf<uint16_t>(call);
  }
}

// --- Element by element ----------------------------------------------------------------------

inline Lanes SwigluLanes(Lanes gate, Lanes up) {
  const Lanes e = Exp(Sub(Set(0.0f), gate));
  return Mul(Div(gate, Add(Set(1.0f), e)), up);
}

void Swiglu(const float* gate, const float* up, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(y + i, SwigluLanes(Load(gate + i), Load(up + i)));
  if (i < n) {
    StorePart(y + i, SwigluLanes(LoadPart(gate + i, n - i), LoadPart(up + i, n - i)), n - i);
  }
}

inline Lanes GeluLanes(Lanes x) {
  const Lanes z = Mul(x, Set(0.70710678f));
  const Lanes magnitude = Max(z, Sub(Set(0.0f), z));
  const Lanes t = Div(Set(1.0f), Fma(Set(0.3275911f), magnitude, Set(1.0f)));
  Lanes p = Set(1.061405429f);
  p = Fma(p, t, Set(-1.453152027f));
  p = Fma(p, t, Set(1.421413741f));
  p = Fma(p, t, Set(-0.284496736f));
  p = Fma(p, t, Set(0.254829592f));
  const Lanes tail = Mul(Mul(p, t), Exp(Sub(Set(0.0f), Mul(magnitude, magnitude))));
  const Lanes erf = Sub(Set(1.0f), tail);
  const Lanes signed_erf = SelectLess(z, Set(0.0f), Sub(Set(0.0f), erf), erf);
  return Mul(Mul(x, Set(0.5f)), Add(Set(1.0f), signed_erf));
}

void Gelu(const float* x, int64_t n, float* y) { Map(x, n, y, GeluLanes); }
void ExpRow(const float* x, int64_t n, float* y) { Map(x, n, y, Exp); }

// --- Gumbel numbers: gumbel.h is the definition ------------------------------------------------

inline Lanes Log(Lanes x) {
  const Words shifted = AddWords(BitsOf(x), SetWord(0u - 0x3f3504f3u));
  const Lanes e = FromSigned(ShiftSigned<23>(shifted));
  const Lanes m = FromBits(AddWords(And(shifted, SetWord(0x007fffffu)), SetWord(0x3f3504f3u)));
  const Lanes f = Sub(m, Set(1.0f));
  const Lanes z = Mul(f, f);
  Lanes p = Set(7.0376836292e-2f);
  p = Fma(p, f, Set(-1.1514610310e-1f));
  p = Fma(p, f, Set(1.1676998740e-1f));
  p = Fma(p, f, Set(-1.2420140846e-1f));
  p = Fma(p, f, Set(1.4249322787e-1f));
  p = Fma(p, f, Set(-1.6668057665e-1f));
  p = Fma(p, f, Set(2.0000714765e-1f));
  p = Fma(p, f, Set(-2.4999993993e-1f));
  p = Fma(p, f, Set(3.3333331174e-1f));
  Lanes y = Mul(Mul(p, f), z);
  y = Fma(e, Set(-2.12194440e-4f), y);
  y = Fma(z, Set(-0.5f), y);
  return Fma(e, Set(0.693359375f), Add(f, y));
}

inline Lanes GumbelOfWords(Words word) {
  const Lanes zero = Set(0.0f), one = Set(1.0f);
  const Words near = Xor(word, ShiftSigned<31>(word));
  const Lanes v = Mul(Add(FromSigned(near), Set(0.5f)), Set(0x1p-32f));
  const Lanes y = Sub(one, v);
  const Lanes lost = Div(Sub(Sub(one, y), v), y);
  const Lanes low = Sub(zero, Add(Log(y), lost)), high = Sub(zero, Log(v));
  return Sub(zero, Log(SelectNegative(word, high, low)));
}

// One 64-id group of counters gives four runs of sixteen numbers.
void GumbelBlock(uint64_t seed, uint64_t index, uint32_t block, float* y) {
  uint32_t groups[kLanes];
  for (uint32_t i = 0; i < kLanes; ++i) groups[i] = block * kLanes + i;
  Words c0 = SetWord(static_cast<uint32_t>(index));
  Words c1 = SetWord(static_cast<uint32_t>(index >> 32));
  Words c2 = LoadWords(groups), c3 = SetWord(0);
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
  const Words multiplier0 = SetWord(0xD2511F53), multiplier1 = SetWord(0xCD9E8D57);
  for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9, key1 += 0xBB67AE85) {
    const Words a_high = MultiplyHigh(c0, multiplier0), a_low = MultiplyLow(c0, multiplier0);
    const Words b_high = MultiplyHigh(c2, multiplier1), b_low = MultiplyLow(c2, multiplier1);
    c0 = Xor(Xor(b_high, c1), SetWord(key0));
    c1 = b_low;
    c2 = Xor(Xor(a_high, c3), SetWord(key1));
    c3 = a_low;
  }
  Store(y, GumbelOfWords(c0));
  Store(y + kLanes, GumbelOfWords(c1));
  Store(y + 2 * kLanes, GumbelOfWords(c2));
  Store(y + 3 * kLanes, GumbelOfWords(c3));
}

}  // namespace

extern const CpuMath TRIPTYCH_MATH_VARIANT = {
    .name = TRIPTYCH_MATH_NAME,
    .gemm = Gemm,
    .attend = Attend,
    .swiglu = Swiglu,
    .gelu = Gelu,
    .exp = ExpRow,
    .gumbel = GumbelBlock,
};

}  // namespace triptych::kernels

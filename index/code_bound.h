/*
 * How near a row can be at the most, by its code: what lets exact search leave rows out unseen.
 *
 * A row is left out only if what is proved below puts its key, as exact.h computes it, above the
 * threshold. Nothing here is a matter of probability.
 *
 * Names. u = 2^-24. P is the exact rotation (signs, Hadamard transforms, butterflies: orthonormal).
 * Of a row x: X = s x - c with the stored scale s (cosine: s is 1 / |x| as a float) and centre c, in
 * the reals; x* = P X; x' the floats that the builder had; h the code. Of a query likewise q*, q'; q^
 * = scale * bytes is what its eight bits stand for. t = <h, q^> is a whole multiple of scale / 2.
 * Lengths are in units of sqrt(add_unit), squares in units of add_unit, so that a typical row is 1.
 *
 * 1. Geometry. Split x' = S h + e, e orthogonal to h. With the angle a between x' and h, and r =
 *    -2 |x'|^2 / <x', h> as stored: S = -(r / 2) cos^2 a, |e| = |x'| sin a. Put w = -(r / 2) t. Then
 *        <x', q'> = <x', q^> + <x', q' - q^> <= <x', q^> + |x'| blur,     blur = |q' - q^|
 *        <x', q^> = S t + <e, q^> <= w cos^2 a + |x'| sin a sqrt(|q^|^2 - z^2),   z = t / |h|
 *    because e meets only the part of q^ that is orthogonal to h.
 *
 * 2. The root is concave in z, so every tangent lies above it: for each number n >= 0,
 *        sqrt(|q^|^2 - z^2) <= |q^| sqrt(1 + n^2) - n z,
 *    and for z < 0 it is at most |q^|. Since <x', h> = |x'| |h| cos a, |x'| z = w cos a, which for w
 *    > 0 is at least w cos^2 a. So for w > 0
 *        <x', q^> <= w cos^2 a (1 - n sin a) + |x'| sin a |q^| sqrt(1 + n^2),
 *    and for w < 0 the same without n in the first term. n is chosen so that the tangent touches
 *    where rows at the threshold lie; a bad choice costs sharpness, not truth.
 *
 * 3. Stored numbers (code_build.c). A half float is within 2^-11 relatively, or 2^-25 absolutely if
 *    it is small, of a float that is within 2 u + 1e-9 of the real number; `spread` works with
 *    VEX_SPREAD_HALF = 2^-11 (1 + 2^-9) and VEX_SPREAD_FLOOR = 2^-24, each in the direction that
 *    widens. (add_unit and rescale_unit below 2^-100, where floats themselves get coarse, make the
 *    bound unusable.) The sine is rounded up; double precision may have lost (dim + 8) 2^-51 of its
 *    square (VEX_SINE_SLACK aside), so sin a <= stored + 2^-17 up to 8,192 dimensions, and cos^2 a
 *    >= 1 - stored^2 - 2^-21. From above, stored exceeds sin a by at most 2^-10 relatively (one step
 *    of a half) and 2^-24, hence cos^2 a <= 1 - stored^2 (1 - 2^-9) + 2^-21.
 *    Where the sine is above 1/2, or r is clamped, small (below 2^-14, where a half has fewer digits)
 *    or of the wrong sign, `spread` uses |x'| |q^| alone, which is step 1 for any code. Where |x'|^2
 *    is clamped or not a number, or the angle is none, the row is kept.
 *    For w < 0 the first term must not be too negative: the smallest |w| cos^2 a is at least
 *    (1 - 2^-11 - 2^-10 ...) / (1 + ...) >= 0.99 of the largest, hence `behind` = 0.99 `ahead`.
 *
 * 4. The floats x' and q' are not x* and q*. Centring: each coordinate is one product and one
 *    difference, |error| <= u |s x| + u |X| <= 2 u |X| + u |c|. A Hadamard transform of 2^m
 *    coordinates makes m roundings of sums, each at most u |vector| as a vector, and 3 u for its
 *    scale; a butterfly at most 3.1 u. So |x' - x*| <= tilt |x'| + shift |c| with tilt = rounds (m +
 *    8) u + 4 u, shift = 2 u (second-order terms and underflow, 2^-149 a piece, are inside the
 *    rounded-up 8 and 4, 2). This holds for any order of sums and with or without fused operations,
 *    so it does not matter on which processor the codes were built.
 *
 * 5. L2 and cosine. |x* - q*| >= d' - g, d' = |x' - q'|, g = tilt (|x'| + |q'|) + 2 shift |c|, so
 *        |x* - q*|^2 >= d'^2 - 2 g d' >= d'^2 - 2 g (|x'| + |q'|)
 *                    >= d'^2 - (4 tilt + 2 shift |c|) (|x'|^2 + |q'|^2) - 4 shift |c|
 *    by (a + b)^2 <= 2 (a^2 + b^2) and a <= (a^2 + 1) / 2. With d'^2 = |x'|^2 + |q'|^2 - 2 <x', q'>
 *    and |x'| blur <= (|x'|^2 + 1) blur / 2, everything is linear in |x'|^2, |x'| sin a and w.
 *    L2: |x* - q*| = s |x - q|; the key in double precision is within (dim + 8) 2^-52 of |x - q|^2.
 *    Cosine: with |s x| = 1 + i, |i| < 2.1 u, and |s q| = 1 + j, |j| < 1.1 u (lengths within
 *    2^-126 .. 2^126; the builder marks other rows by an angle that is no number),
 *        |x* - q*|^2 = (i - j)^2 + 2 (1 + i) (1 + j) (1 - cos),
 *    so 1 - cos <= key implies |x* - q*|^2 <= 16 u^2 + 2 (1 + 4.1 u) key. The key in double precision
 *    is within (dim + 8) 2^-50 of 1 - cos.
 *
 * 6. Dot. q is scaled to about 1 by the float sq and not centred: s sq <q, x> = <sq q, c> + <q*, x*>,
 *        <q*, x*> <= <q', x'> + |q' - q*| |x'| + |q*| |x' - x*|
 *                 <= <q', x'> + 2.1 tilt |q'| |x'| + 1.1 shift |c| |q'|,
 *    the key in double precision being within (dim + 8) 2^-52 |q| |x|, less than the share of u that
 *    was rounded up in tilt and shift.
 *
 * 7. The sieve (scan_kernels.h) adds five terms in floats: each product and sum is rounded once, and
 *    the terms were rounded to floats once: within 8 u of the sum of magnitudes. So each term is
 *    lowered by 16 u of itself here or by VEX_SPREAD_ROUND = 32 u in `spread`, whose own operations
 *    need 6 u of that. v = dot - middle is exact: up to 8,192 dimensions it is half of a whole number
 *    below 2^24. 2^-60 pays for underflow.
 *
 * tests/unit/test_index_bound.c attacks all of this with rows and queries made for it.
 *
 * Thread-safety: pure functions on what they are given.
 */
#ifndef VEX_INDEX_CODE_BOUND_H
#define VEX_INDEX_CODE_BOUND_H

#include "index/code_space.h"
#include "index/scan_kernels.h"

#define VEX_BOUND_PADDED_MAX 8192u

/* A query against one segment's codes. */
struct vex_code_bound {
    enum vex_metric metric;
    bool is_usable; /* else every row is kept */
    uint32_t dim;
    double square;    /* |q'|^2 */
    double length;    /* |q^| */
    double constant;  /* of the base, all but the threshold */
    double key_scale; /* threshold in units = key * key_scale + key_offset */
    double key_offset;
    struct vex_scan_terms fixed; /* what the threshold does not change */
};

/* Of step 4: what rotating may have done to a vector, as a share of its length. */
double vex_code_bound_tilt(const struct vex_rotation *rotation);
/*
 * From a query and what vex_code_space_query made of it. Whatever the numbers are, the bound is safe
 * to use: if they are beyond what the proof covers, nothing is left out.
 */
void vex_code_bound_init(struct vex_code_bound *bound, const struct vex_code_space *space,
                         const struct vex_codes *codes, const float *query, double query_norm,
                         const float *rotated, const struct vex_code_target *target);
/* Terms by which no row is left out whose key is `key` or less. */
void vex_code_bound_terms(const struct vex_code_bound *bound, double key,
                          struct vex_scan_terms *out);
/* Terms that keep rows by an estimate of the same scale, `least` being estimate - threshold. They
 * prove nothing. */
void vex_code_bound_guess(const struct vex_code_bound *bound, float threshold,
                          struct vex_scan_terms *out);

#endif

//! SHA-512's compression function (FIPS 180-4, 6.4.2), faster than `sha2`'s where the processor allows it.
//!
//! Two things make it fast. The message schedule of two blocks is computed at once, each in its half of the AVX2
//! registers, and between the rounds, so that vector and scalar units work side by side. And the additions of a round
//! are ordered so that each of its two results follows from the one before in four dependent steps; in assembly, because
//! compilers put the additions back in an order of their own.
//!
//! It takes AVX2, BMI1 and BMI2: Intel since 2013, AMD since 2017. The rest is `sha2`'s work: other processors, and a
//! block that is left without a second one.

/// The words of a hash value.
pub type State = [u64; 8];
/// As many bytes as are hashed at a time.
pub type Block = [u8; 128];

/// The initial hash value (FIPS 180-4, 5.3.5).
pub const INITIAL: State = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// Hashes `blocks` into `state`.
///
/// Without optimisation, `sha2` does all of it: it is optimised in every build (`profile.dev` in Cargo.toml), and vectors
/// handled a call at a time would make it fifty times as slow here.
pub fn compress(state: &mut State, blocks: &[Block]) {
    if cfg!(debug_assertions) {
        return sha2::block_api::compress512(state, blocks);
    }
    compress_optimised(state, blocks);
}

/// The same as fast as this processor can, once compilers have done their part.
fn compress_optimised(state: &mut State, blocks: &[Block]) {
    #[cfg(target_arch = "x86_64")]
    let blocks = avx2::compress(state, blocks);
    if !blocks.is_empty() {
        sha2::block_api::compress512(state, blocks);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    #![expect(unsafe_code, reason = "assembly, loads and stores of vectors")]

    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::array;
    use std::hint::black_box;
    use std::ops::Range;

    use super::{Block, State};

    /// For 16 rounds, what each adds: in [`K`] the constant, in a schedule the word of the message as well.
    type Stride = [[u64; 2]; 8];
    type Schedule = [Stride; 5];

    /// Hashes `blocks` two by two, and returns what is left: all of them, where an instruction is missing.
    pub fn compress<'a>(state: &mut State, blocks: &'a [Block]) -> &'a [Block] {
        // Looked up once by the standard library; after that, a load and a test each.
        let able = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        let (pairs, rest) = blocks.as_chunks();
        if !able {
            return blocks;
        }
        // SAFETY: the processor has the features that the function asks for.
        unsafe { compress_pairs(state, pairs) };
        rest
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn compress_pairs(state: &mut State, pairs: &[[Block; 2]]) {
        let (mut first, mut second) = (Schedule::default(), Schedule::default());
        let mut pairs = pairs.iter();
        let mut next = pairs.next().map(|pair| begin(pair, &mut first));
        while let Some(words) = next {
            let [second_now, second_later @ ..] = &mut second;
            for ((&words, constants), sums) in words.iter().zip(&K[0]).zip(second_now) {
                store(_mm256_extracti128_si256(add(words, constants), 1), sums);
            }
            let variables = rounds_and_schedule(*state, words, &mut first, second_later);
            finish(variables, array::from_ref(&first[4]), state);
            // Now, because the processor would have to wait for it after the second block's rounds.
            next = pairs.next().map(|pair| begin(pair, &mut first));
            finish(*state, &second, state);
        }
    }

    /// One round (FIPS 180-4, 6.4.2, step 3). Nothing moves from variable to variable: the new e is left in d, the new a in
    /// h, and the next round is given the names in that order.
    ///
    /// With T1 = h + Σ1(e) + Ch(e, f, g) + K + W, the new e is d + T1, and the new a is T1 + Σ0(a) + Maj(a, b, c): here, the
    /// new e + (Maj - d) + Σ0(a), so that T1 itself is not needed. Ch and Maj are each two terms without a common bit, added
    /// one by one. What takes longest comes last. `bc` is b ^ c, which is a ^ b for the next round.
    #[rustfmt::skip]
    macro_rules! round {
        ($a:literal $b:literal $c:literal $d:literal $e:literal $f:literal $g:literal $h:literal, $at:literal) => {
            concat!(
                "add {", $h, "}, [{wk} + ", $at, "]\n",
                "andn {y}, {bc}, {", $b, "}\n", // b & c
                "sub {y}, {", $d, "}\n",
                "add {", $d, "}, {", $h, "}\n",
                "andn {x}, {", $e, "}, {", $g, "}\n", // Ch: g where e is 0
                "add {", $d, "}, {x}\n",
                "mov {x}, {", $f, "}\n", // and f where it is 1
                "and {x}, {", $e, "}\n",
                "add {", $d, "}, {x}\n",
                "rorx {", $h, "}, {", $e, "}, 14\n", // Σ1(e)
                "rorx {x}, {", $e, "}, 18\n",
                "xor {", $h, "}, {x}\n",
                "rorx {x}, {", $e, "}, 41\n",
                "xor {", $h, "}, {x}\n",
                "add {", $d, "}, {", $h, "}\n", // the new e
                "and {bc}, {", $a, "}\n", // Maj: a where b and c differ, and b & c
                "add {y}, {bc}\n",
                "add {y}, {", $d, "}\n",
                "rorx {", $h, "}, {", $a, "}, 28\n", // Σ0(a)
                "rorx {x}, {", $a, "}, 34\n",
                "xor {", $h, "}, {x}\n",
                "rorx {x}, {", $a, "}, 39\n",
                "xor {", $h, "}, {x}\n",
                "add {", $h, "}, {y}\n", // the new a
                "mov {bc}, {", $b, "}\n",
                "xor {bc}, {", $a, "}\n",
            )
        };
    }

    /// Does the first block's rounds but those of the last stride, and completes the schedules meanwhile.
    #[inline]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn rounds_and_schedule(
        mut state: State,
        mut w: [__m256i; 8],
        first: &mut Schedule,
        second_later: &mut [Stride; 4],
    ) -> State {
        let [_, later_constants @ ..] = &K;
        let [now, later_first @ ..] = first;
        let mut now = &*now;
        // Hidden from the compiler, which takes assembly for small and would unroll the loop: the code would not fit the
        // processor's cache of decoded instructions any more.
        let later_constants = black_box(later_constants);
        for ((next, next_second), constants) in later_first.iter_mut().zip(second_later).zip(later_constants)
        {
            macro_rules! steps {
                ($($i:literal)*) => {$(
                    let (w1, w4, w5) = (w[($i + 1) % 8], w[($i + 4) % 8], w[($i + 5) % 8]);
                    w[$i] = word(w[$i], w1, w4, w5, w[($i + 7) % 8]);
                    let sums = add(w[$i], &constants[$i]);
                    store(_mm256_castsi256_si128(sums), &mut next[$i]);
                    store(_mm256_extracti128_si256(sums, 1), &mut next_second[$i]);
                    state = two_rounds(state, &now[$i]);
                )*};
            }
            steps!(0 1 2 3 4 5 6 7);
            now = next;
        }
        state
    }

    /// Two rounds, given what each adds.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2")]
    fn two_rounds(state: State, wk: &[u64; 2]) -> State {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = state;
        // SAFETY: these instructions are BMI1's and BMI2's. They change the registers named here and the flags, and read
        // the 16 bytes at `wk`.
        unsafe {
            asm!(
                "mov {bc}, {b}",
                "xor {bc}, {c}",
                round!("a" "b" "c" "d" "e" "f" "g" "h", "0"),
                round!("h" "a" "b" "c" "d" "e" "f" "g", "8"),
                a = inout(reg) a, b = inout(reg) b, c = inout(reg) c, d = inout(reg) d,
                e = inout(reg) e, f = inout(reg) f, g = inout(reg) g, h = inout(reg) h,
                x = out(reg) _, y = out(reg) _, bc = out(reg) _,
                wk = in(reg) wk.as_ptr(),
                options(pure, readonly, nostack),
            );
        }
        [g, h, a, b, c, d, e, f]
    }

    /// Does the rounds of these strides, the last of a block, and adds what comes of it to `state`.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2")]
    fn finish<const N: usize>(variables: State, strides: &[Stride; N], state: &mut State) {
        const { assert!(N > 0) }
        let [a, b, c, d, e, f, g, h] = variables;
        let Range { start, end } = strides.as_ptr_range();
        // SAFETY: these instructions are BMI1's and BMI2's. They change the registers named here, the flags and the eight
        // words of `state`, and read 64 bytes at a time from `start` on until `end`, which they meet: a stride is twice as
        // long, and there is one.
        unsafe {
            asm!(
                "mov {bc}, {b}",
                "xor {bc}, {c}",
                "2:",
                round!("a" "b" "c" "d" "e" "f" "g" "h", "0"),
                round!("h" "a" "b" "c" "d" "e" "f" "g", "8"),
                round!("g" "h" "a" "b" "c" "d" "e" "f", "16"),
                round!("f" "g" "h" "a" "b" "c" "d" "e", "24"),
                round!("e" "f" "g" "h" "a" "b" "c" "d", "32"),
                round!("d" "e" "f" "g" "h" "a" "b" "c", "40"),
                round!("c" "d" "e" "f" "g" "h" "a" "b", "48"),
                round!("b" "c" "d" "e" "f" "g" "h" "a", "56"),
                "add {wk}, 64",
                "cmp {wk}, {end}",
                "jne 2b",
                "add [{state}], {a}",
                "add [{state} + 8], {b}",
                "add [{state} + 16], {c}",
                "add [{state} + 24], {d}",
                "add [{state} + 32], {e}",
                "add [{state} + 40], {f}",
                "add [{state} + 48], {g}",
                "add [{state} + 56], {h}",
                a = inout(reg) a => _, b = inout(reg) b => _, c = inout(reg) c => _, d = inout(reg) d => _,
                e = inout(reg) e => _, f = inout(reg) f => _, g = inout(reg) g => _, h = inout(reg) h => _,
                x = out(reg) _, y = out(reg) _, bc = out(reg) _,
                wk = inout(reg) start => _, end = in(reg) end, state = in(reg) state.as_mut_ptr(),
                options(nostack),
            );
        }
    }

    /// Takes the words of two blocks, and makes the first stride of the first one's schedule.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn begin(pair: &[Block; 2], first: &mut Schedule) -> [__m256i; 8] {
        let words = message(pair);
        for ((&words, constants), sums) in words.iter().zip(&K[0]).zip(&mut first[0]) {
            store(_mm256_castsi256_si128(add(words, constants)), sums);
        }
        words
    }

    /// The 16 words of two blocks: two words of the first block in the lower half of a vector, and of the second in the
    /// upper.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn message([first, second]: &[Block; 2]) -> [__m256i; 8] {
        let big_endian =
            _mm256_broadcastsi128_si256(_mm_set_epi64x(0x0809_0a0b_0c0d_0e0f, 0x0001_0203_0405_0607));
        let mut bytes = first.as_chunks().0.iter().zip(second.as_chunks().0);
        array::from_fn(|_| match bytes.next() {
            Some((first, second)) => {
                let words = _mm256_set_m128i(load(second), load(first));
                _mm256_shuffle_epi8(words, big_endian)
            }
            None => _mm256_setzero_si256(),
        })
    }

    /// The next two words of the schedules: `W[t] = σ1(W[t - 2]) + W[t - 7] + σ0(W[t - 15]) + W[t - 16]`, and `W[t + 1]`. Of
    /// the last 16 it takes those numbered by the pair.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn word(w0: __m256i, w1: __m256i, w4: __m256i, w5: __m256i, w7: __m256i) -> __m256i {
        let t_15 = _mm256_alignr_epi8(w1, w0, 8);
        let t_7 = _mm256_alignr_epi8(w5, w4, 8);
        let sum = _mm256_add_epi64(_mm256_add_epi64(w0, t_7), small_sigma::<1, 63, 8, 56, 7>(t_15));
        _mm256_add_epi64(sum, small_sigma::<19, 45, 61, 3, 6>(w7))
    }

    /// σ (FIPS 180-4, 4.1.3): two rotations, each a shift right and a shift left, and a shift.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn small_sigma<const R1: i32, const L1: i32, const R2: i32, const L2: i32, const SHIFT: i32>(
        w: __m256i,
    ) -> __m256i {
        let one = _mm256_xor_si256(_mm256_srli_epi64(w, R1), _mm256_slli_epi64(w, L1));
        let two = _mm256_xor_si256(_mm256_srli_epi64(w, R2), _mm256_slli_epi64(w, L2));
        _mm256_xor_si256(_mm256_xor_si256(one, two), _mm256_srli_epi64(w, SHIFT))
    }

    /// Adds the constants of two rounds to their words, in both blocks.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(words: __m256i, constants: &[u64; 2]) -> __m256i {
        // SAFETY: two numbers are as long as the vector, which may lie at any address.
        let constants = unsafe { _mm_loadu_si128(constants.as_ptr().cast()) };
        _mm256_add_epi64(words, _mm256_broadcastsi128_si256(constants))
    }

    #[inline]
    fn store(sums: __m128i, to: &mut [u64; 2]) {
        // SAFETY: two numbers are as long as the vector, which may lie at any address.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), sums) };
    }

    #[inline]
    fn load(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are as long as the vector, which may lie at any address.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// The constants of the rounds (FIPS 180-4, 4.2.3).
    #[rustfmt::skip]
    const K: Schedule = [
        [
            [0x428a_2f98_d728_ae22, 0x7137_4491_23ef_65cd], [0xb5c0_fbcf_ec4d_3b2f, 0xe9b5_dba5_8189_dbbc],
            [0x3956_c25b_f348_b538, 0x59f1_11f1_b605_d019], [0x923f_82a4_af19_4f9b, 0xab1c_5ed5_da6d_8118],
            [0xd807_aa98_a303_0242, 0x1283_5b01_4570_6fbe], [0x2431_85be_4ee4_b28c, 0x550c_7dc3_d5ff_b4e2],
            [0x72be_5d74_f27b_896f, 0x80de_b1fe_3b16_96b1], [0x9bdc_06a7_25c7_1235, 0xc19b_f174_cf69_2694],
        ],
        [
            [0xe49b_69c1_9ef1_4ad2, 0xefbe_4786_384f_25e3], [0x0fc1_9dc6_8b8c_d5b5, 0x240c_a1cc_77ac_9c65],
            [0x2de9_2c6f_592b_0275, 0x4a74_84aa_6ea6_e483], [0x5cb0_a9dc_bd41_fbd4, 0x76f9_88da_8311_53b5],
            [0x983e_5152_ee66_dfab, 0xa831_c66d_2db4_3210], [0xb003_27c8_98fb_213f, 0xbf59_7fc7_beef_0ee4],
            [0xc6e0_0bf3_3da8_8fc2, 0xd5a7_9147_930a_a725], [0x06ca_6351_e003_826f, 0x1429_2967_0a0e_6e70],
        ],
        [
            [0x27b7_0a85_46d2_2ffc, 0x2e1b_2138_5c26_c926], [0x4d2c_6dfc_5ac4_2aed, 0x5338_0d13_9d95_b3df],
            [0x650a_7354_8baf_63de, 0x766a_0abb_3c77_b2a8], [0x81c2_c92e_47ed_aee6, 0x9272_2c85_1482_353b],
            [0xa2bf_e8a1_4cf1_0364, 0xa81a_664b_bc42_3001], [0xc24b_8b70_d0f8_9791, 0xc76c_51a3_0654_be30],
            [0xd192_e819_d6ef_5218, 0xd699_0624_5565_a910], [0xf40e_3585_5771_202a, 0x106a_a070_32bb_d1b8],
        ],
        [
            [0x19a4_c116_b8d2_d0c8, 0x1e37_6c08_5141_ab53], [0x2748_774c_df8e_eb99, 0x34b0_bcb5_e19b_48a8],
            [0x391c_0cb3_c5c9_5a63, 0x4ed8_aa4a_e341_8acb], [0x5b9c_ca4f_7763_e373, 0x682e_6ff3_d6b2_b8a3],
            [0x748f_82ee_5def_b2fc, 0x78a5_636f_4317_2f60], [0x84c8_7814_a1f0_ab72, 0x8cc7_0208_1a64_39ec],
            [0x90be_fffa_2363_1e28, 0xa450_6ceb_de82_bde9], [0xbef9_a3f7_b2c6_7915, 0xc671_78f2_e372_532b],
        ],
        [
            [0xca27_3ece_ea26_619c, 0xd186_b8c7_21c0_c207], [0xeada_7dd6_cde0_eb1e, 0xf57d_4f7f_ee6e_d178],
            [0x06f0_67aa_7217_6fba, 0x0a63_7dc5_a2c8_98a6], [0x113f_9804_bef9_0dae, 0x1b71_0b35_131c_471b],
            [0x28db_77f5_2304_7d84, 0x32ca_ab7b_40c7_2493], [0x3c9e_be0a_15c9_bebc, 0x431d_67c4_9c10_0d4c],
            [0x4cc5_d4be_cb3e_42b6, 0x597f_299c_fc65_7e2a], [0x5fcb_6fab_3ad6_faec, 0x6c44_198c_4a47_5817],
        ],
    ];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blocks(count: usize) -> Vec<Block> {
        (0..count).map(|i| std::array::from_fn(|j| (i * 37 + j * j * 11 + (i ^ j) / 3) as u8)).collect()
    }

    fn by_sha2(state: State, blocks: &[Block]) -> State {
        by(sha2::block_api::compress512, state, blocks)
    }

    fn by(compress: impl Fn(&mut State, &[Block]), mut state: State, blocks: &[Block]) -> State {
        compress(&mut state, blocks);
        state
    }

    #[test]
    fn any_number_of_blocks_is_hashed_as_sha2_does() {
        for count in 0..=33 {
            let blocks = blocks(count);
            let expected = by_sha2(INITIAL, &blocks);
            assert_eq!(by(compress, INITIAL, &blocks), expected, "{count} blocks");
            assert_eq!(by(compress_optimised, INITIAL, &blocks), expected, "{count} blocks");
        }
    }

    /// Called by name, lest a mistake in the dispatch leave it untested. A processor without AVX2 shows that it declines.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn avx2_takes_all_pairs() {
        let able = ["avx2", "bmi1", "bmi2"].iter().all(|&feature| {
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
            cpuinfo.split_whitespace().any(|word| word == feature)
        });
        for count in 0..=9 {
            let blocks = blocks(count);
            let mut state = INITIAL;
            let left = avx2::compress(&mut state, &blocks).len();
            assert_eq!(left, if able { count % 2 } else { count });
            assert_eq!(state, by_sha2(INITIAL, &blocks[..count - left]), "{count} blocks");
        }
    }

    proptest! {
        #[test]
        fn from_any_state_any_blocks_are_hashed_as_sha2_does(
            state: State,
            bytes in prop::collection::vec(any::<u8>(), 0..128 * 6),
        ) {
            let (blocks, _) = bytes.as_chunks();
            prop_assert_eq!(by(compress_optimised, state, blocks), by_sha2(state, blocks));
        }
    }
}

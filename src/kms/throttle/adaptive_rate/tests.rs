//! What the rate does over time, as tables and against a quota that is shared.

use super::*;

const fn ms(millis: u64) -> Moment {
    Duration::from_millis(millis)
}

/// What goes on for a while.
#[derive(Debug, Clone, Copy)]
enum Load {
    /// As many calls as there are tokens for, all answered.
    Flood,
    /// The same, all throttled.
    Throttled,
    /// So many calls in a second, all answered.
    Calls(u64),
    /// The daemon calls as much as it may and hears nothing.
    Silence,
}
use Load::{Calls, Flood, Silence, Throttled};

/// Has this go on from one moment to another, in steps of a millisecond. A call is answered 20 ms
/// after it began.
fn run(rate: &mut AdaptiveRate, load: Load, from: Moment, to: Moment) -> u32 {
    let (mut now, mut calls) = (from, 0);
    let mut under_way: Vec<Moment> = Vec::new();
    while now < to {
        under_way.retain(|&began| {
            if now < began + ms(20) {
                return true;
            }
            match load {
                Flood | Calls(_) => rate.answered(began, now),
                Load::Throttled => rate.throttled(began, now),
                Silence => {}
            }
            false
        });
        let wanted = match load {
            Flood | Load::Throttled | Silence => usize::MAX,
            Calls(per_second) => {
                let wanted = |now: Moment| now.as_millis() as u64 * per_second / 1000;
                (wanted(now + ms(1)) - wanted(now)) as usize
            }
        };
        for _ in 0..wanted {
            if rate.good(now) > now {
                break;
            }
            rate.take(now);
            under_way.push(now);
            calls += 1;
        }
        now += ms(1);
    }
    calls
}

/// Each row: what goes on until that second, and the rate then.
#[track_caller]
fn follows(mut rate: AdaptiveRate, rows: &[(Load, u64, f64)]) -> AdaptiveRate {
    let mut from = Moment::ZERO;
    for (n, &(load, until, expected)) in rows.iter().enumerate() {
        run(&mut rate, load, from, ms(until));
        from = ms(until);
        assert_eq!(rate.rate(), expected, "row {n}: {load:?} until {until} ms");
    }
    rate
}

#[test]
fn it_doubles_each_second_while_it_is_what_limits() {
    follows(
        AdaptiveRate::new(100.0, 1000.0),
        &[
            (Flood, 900, 100.0),
            (Flood, 1_200, 200.0),
            (Flood, 2_200, 400.0),
            (Flood, 3_200, 800.0),
            (Flood, 4_300, 1000.0),
            (Flood, 60_000, 1000.0),
        ],
    );
    // What it does not hold up teaches nothing.
    follows(
        AdaptiveRate::new(100.0, 1000.0),
        &[(Calls(50), 60_000, 100.0), (Flood, 60_900, 100.0), (Flood, 61_200, 200.0)],
    );
    follows(AdaptiveRate::new(100.0, 1000.0), &[(Calls(150), 3_000, 200.0), (Calls(150), 60_000, 200.0)]);
    // Nor does what nobody answers.
    follows(AdaptiveRate::new(100.0, 1000.0), &[(Silence, 60_000, 100.0)]);
}

#[test]
fn ten_thousand_calls_take_thirteen_seconds_with_no_word_of_the_policy() {
    let mut rate = AdaptiveRate::new(100.0, 1000.0);
    let calls = run(&mut rate, Flood, Moment::ZERO, ms(13_000));
    assert!(calls >= 10_000, "{calls}");
}

#[test]
fn a_policys_rate_is_the_first_and_the_highest() {
    let rate = AdaptiveRate::new(50.0, 50.0);
    let mut rate = follows(rate, &[(Flood, 20_000, 50.0)]);
    let calls = run(&mut rate, Flood, ms(20_000), ms(30_000));
    assert!((490..=505).contains(&calls), "{calls}");
}

#[test]
fn k8_throttling_halves_it_and_it_comes_back_by_steps() {
    let mut rate = AdaptiveRate::new(100.0, 1000.0);
    run(&mut rate, Flood, Moment::ZERO, ms(3_500));
    assert_eq!(rate.rate(), 800.0);
    rate.throttled(ms(3_480), ms(3_500));
    assert_eq!((rate.rate(), rate.last_throttled()), (400.0, Some(ms(3_500))));
    let mut from = ms(3_500);
    for (until, expected) in [(4_400, 400.0), (4_700, 420.0), (5_800, 440.0), (40_000, 1000.0)] {
        run(&mut rate, Flood, from, ms(until));
        assert_eq!(rate.rate(), expected, "{until}");
        from = ms(until);
    }
}

#[test]
fn k8_what_was_under_way_together_halves_the_rate_once() {
    let mut rate = AdaptiveRate::new(50.0, 50.0);
    let (began, now) = (ms(1000), ms(1050));
    (0..64).for_each(|_| rate.throttled(began, now));
    assert_eq!(rate.rate(), 25.0);
    rate.throttled(now, ms(1100));
    assert_eq!(rate.rate(), 12.5);
    for began in 2000..2020 {
        rate.throttled(ms(began), ms(began));
    }
    assert_eq!(rate.rate(), SLOWEST);
    let mut slow = AdaptiveRate::new(1.0, 1.0);
    (0..2).for_each(|_| slow.throttled(now, now));
    assert_eq!(slow.rate(), SLOWEST);
}

#[test]
fn k8_after_a_long_time_of_throttling_it_comes_back_within_seconds_to_half_of_what_was_too_much() {
    let mut rate = AdaptiveRate::new(64.0, 64.0);
    run(&mut rate, Throttled, Moment::ZERO, ms(60_000));
    assert_eq!(rate.rate(), SLOWEST);
    run(&mut rate, Flood, ms(60_000), ms(64_000));
    assert!(rate.rate() >= 4.0, "{}", rate.rate());
    run(&mut rate, Flood, ms(64_000), ms(68_000));
    assert!((32.0..40.0).contains(&rate.rate()), "{}", rate.rate()); // 8, 16, 32, and then steps
    run(&mut rate, Flood, ms(68_000), ms(100_000));
    assert_eq!(rate.rate(), 64.0);
}

#[test]
fn k8_a_quiet_daemon_comes_back_too() {
    // Its few calls are held up by nothing, and are answered.
    let mut rate = AdaptiveRate::new(64.0, 64.0);
    run(&mut rate, Throttled, Moment::ZERO, ms(20_000));
    run(&mut rate, Calls(1), ms(20_000), ms(60_000));
    assert_eq!(rate.rate(), 32.0);
}

#[test]
fn k8_throttled_again_on_the_way_back_it_is_careful_earlier() {
    let mut rate = AdaptiveRate::new(64.0, 64.0);
    rate.throttled(ms(1000), ms(1000));
    rate.throttled(ms(1001), ms(1001));
    rate.throttled(ms(1002), ms(1002));
    assert_eq!(rate.rate(), 8.0);
    assert_eq!(rate.throttled.unwrap().careful, 32.0, "where it was halved first");
    // An answer to what began before tells nothing.
    rate.answered(ms(990), ms(1003));
    rate.throttled(ms(1004), ms(1004));
    assert_eq!(rate.throttled.unwrap().careful, 32.0);
    rate.answered(ms(1005), ms(1006));
    rate.throttled(ms(1007), ms(1007));
    assert_eq!(rate.throttled.unwrap().careful, 2.0, "it was answered in between: a new one");
}

#[test]
fn k8_who_waits_for_a_token_of_a_slow_time_waits_no_longer_than_it_takes_by_now() {
    let mut rate = AdaptiveRate::new(64.0, 64.0);
    (0..10).for_each(|n| rate.throttled(ms(1000 + n), ms(1000 + n)));
    let now = ms(5000);
    while rate.good(now) <= now {
        rate.take(now);
    }
    assert!(rate.good(now) > now + ms(1500));
    rate.answered(now, now);
    assert_eq!(rate.good(now), now + ms(1000));
}

/// A quota: a bucket of tokens as KMS may have it, from which clients of all kinds take.
struct Shared {
    per_second: f64,
    /// The most tokens that are saved up.
    depth: f64,
    tokens: f64,
    at: Moment,
}

impl Shared {
    fn admits(&mut self, now: Moment) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.depth);
        self.at = now;
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}

/// Another client, which backs off as a textbook has it: it adds twenty calls a second each second,
/// and halves what it does when it is throttled.
struct Other {
    per_second: f64,
    halved: Moment,
    credit: f64,
}

/// How much each of both got in two minutes of a quota, and how often KMS said no.
fn share(mut quota: Shared, others: f64) -> (u32, u32, u32) {
    let mut rate = AdaptiveRate::new(100.0, 1000.0);
    let mut other = Other { per_second: others, halved: Moment::ZERO, credit: 0.0 };
    let (mut ours, mut theirs, mut refused) = (0, 0, 0);
    let mut under_way: Vec<(Moment, bool, bool)> = Vec::new();
    for now in (0..120_000).map(ms) {
        under_way.retain(|&(began, is_ours, is_admitted)| {
            if now < began + ms(20) {
                return true;
            }
            match (is_ours, is_admitted) {
                (true, true) => rate.answered(began, now),
                (true, false) => rate.throttled(began, now),
                (false, true) => {}
                (false, false) if began >= other.halved => {
                    (other.per_second, other.halved) = ((other.per_second / 2.0).max(1.0), now);
                }
                (false, false) => {}
            }
            false
        });
        other.per_second += 0.02;
        other.credit += other.per_second / 1000.0;
        let mut call = |is_ours: bool, got: &mut u32| {
            let is_admitted = quota.admits(now);
            *if is_admitted { got } else { &mut refused } += 1;
            under_way.push((now, is_ours, is_admitted));
        };
        while other.credit >= 1.0 {
            other.credit -= 1.0;
            call(false, &mut theirs);
        }
        while rate.good(now) <= now {
            rate.take(now);
            call(true, &mut ours);
        }
    }
    (ours, theirs, refused)
}

#[test]
fn k8_another_client_of_the_same_quota_keeps_two_fifths_of_it() {
    for (per_second, depth, others) in [
        (300.0, 30.0, 1.0),
        (300.0, 30.0, 150.0),
        (300.0, 30.0, 290.0),
        (300.0, 300.0, 1.0),
        (300.0, 300.0, 150.0),
        (300.0, 300.0, 290.0),
        (100.0, 10.0, 50.0),
    ] {
        let (ours, theirs, refused) =
            share(Shared { per_second, depth, tokens: depth, at: Moment::ZERO }, others);
        let all = ours + theirs;
        let shown = format!(
            "{per_second} a second, {others} of them theirs at first: ours {ours}, theirs {theirs}, refused {refused}"
        );
        println!("{shown}");
        assert!(theirs * 5 >= all * 2, "{shown}");
        assert!(ours * 5 >= all, "nor do we starve; {shown}");
        assert!(f64::from(all) >= 120.0 * per_second * 0.6, "both together use what there is; {shown}");
        assert!(refused * 20 <= all, "KMS says no to one in twenty at most; {shown}");
    }
}

//! What every class shares: random tries that a seed repeats, mutations, and the judgment of what the binary did.

use std::cell::Cell;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::Run;

/// The longest that the binary may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most address space that the binary may ask for, in KiB: 2 GB of memory, and what threads and mapped files reserve.
const ADDRESS_SPACE: &str = "3000000";

/// How often each class is tried.
pub fn tries() -> u64 {
    number("FERULE_ATTACKS", 24)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// One class of attacks: `body` is called [`tries`] times, with random numbers that depend on seed, class and try alone.
pub fn class(name: &str, mut body: impl FnMut(&Attempt, &mut Random)) {
    let seed = number("FERULE_ATTACK_SEED", 1);
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for n in 0..tries() {
        let attempt = Attempt {
            name: format!("{name}, try {n}, seed {seed}"),
            refused: Cell::new(false),
            slowest: Cell::default(),
        };
        body(&attempt, &mut Random::new(&format!("{seed} {name} {n}")));
        refused += u64::from(attempt.refused.get());
        slowest = slowest.max(attempt.slowest.get());
    }
    eprintln!(
        "attack {name}: {} tries, {refused} refused, slowest {:.2} s, seed {seed}",
        tries(),
        slowest.as_secs_f64()
    );
}

/// One try.
pub struct Attempt {
    pub name: String,
    refused: Cell<bool>,
    slowest: Cell<Duration>,
}

impl Attempt {
    /// Runs the binary (a command of `support::command`) and checks that it ended as a program should: in time, within memory, by itself,
    /// and if it refused, with a line that begins with `error:`.
    pub fn run(&self, command: &Command, stdin: &[u8]) -> Run {
        let mut confined = Command::new("sh");
        confined.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", ADDRESS_SPACE]).arg(command.get_program());
        confined.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => confined.env(name, value),
                None => confined.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            confined.current_dir(folder);
        }
        let began = Instant::now();
        let mut child =
            confined.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh starts");
        let mut input = child.stdin.take().expect("piped");
        let stdin = stdin.to_vec();
        std::thread::spawn(move || std::io::Write::write_all(&mut input, &stdin));
        let id = child.id().to_string();
        let (ended, waits) = std::sync::mpsc::channel();
        std::thread::spawn(move || ended.send(child.wait_with_output()));
        let Ok(output) = waits.recv_timeout(PATIENCE) else {
            let _ = Command::new("kill").args(["-9", &id]).status();
            panic!("{}: still running after {PATIENCE:?}: {command:?}", self.name);
        };
        self.slowest.set(self.slowest.get().max(began.elapsed()));
        let output = output.expect("a child");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let run = Run {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        let sound = matches!(run.code, 0..=2 | 130) && !run.stderr.contains("panicked at");
        assert!(sound, "{}: {command:?} ended with {}:\n{}", self.name, output.status, run.stderr);
        if run.code != 0 {
            assert!(run.stderr.contains("error:"), "{}: {command:?} says no error:\n{}", self.name, run.stderr);
            self.refused.set(true);
        }
        run
    }
}

/// Random numbers by SplitMix64.
pub struct Random(u64);

impl Random {
    fn new(key: &str) -> Self {
        // FNV-1a.
        Self(
            key.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is at least 1.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Damages bytes in one to three places: a bit flipped, a byte set, a piece removed, repeated, moved or cut off, a run of zeros or of
    /// 0xff, a decimal number replaced by an extreme one.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            if bytes.is_empty() {
                bytes.push(self.next() as u8);
            }
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(64)).min(bytes.len());
            match self.below(10) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = self.next() as u8,
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let piece = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                5 => bytes.truncate(at),
                6 => bytes[at..end].fill(0),
                7 => bytes[at..end].fill(0xff),
                8 => {
                    let piece = *self.pick::<&[u8]>(&[
                        b"{",
                        b"\"",
                        b"\n",
                        b",",
                        b"[",
                        b"\0",
                        b"\xff\xfe",
                        b"{{",
                        b"%}",
                        "\u{202e}".as_bytes(),
                        b"\x1b[2J",
                    ]);
                    bytes.splice(at..at, piece.iter().copied());
                }
                _ => {
                    let Some(from) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { continue };
                    let to = (from..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
                    bytes.splice(from..to, self.pick(NUMBERS).bytes());
                }
            }
        }
    }
}

/// Numbers that programs stumble over.
pub const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "-0.0",
    "0.5",
    "1e-300",
    "1e300",
    "1e9",
    "-1e9",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "123456789012345678901234567890",
];

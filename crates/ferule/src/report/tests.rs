//! Tests the page on invented data: a short judgment run, stored as a real run and read back.

use std::fs;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{BaselineRow, Notice, Rollout, Run, Runs, StageRow, StepMetrics, Verdict, VerdictOutcome};

use super::{Language, Report, page, summary};

const RECIPE: &str =
    "seed = 7\ntask = \"judgment\"\n\n[[stages]]\nname = \"grpo\"\nlearning_rate = 2e-4 # <b>not markup</b>\n";

/// (stage, kind, model, accuracy, half interval, labels, answers, rollouts, teacher tokens, train tokens, flops, seconds)
type Line = (&'static str, &'static str, &'static str, Option<f64>, f64, u64, u64, u64, u64, u64, f64, f64);

const ROAD: [Line; 6] = [
    ("tokenizer", "tokenizer", "", None, 0.0, 0, 0, 0, 0, 0, 0.0, 4.2),
    ("pretrain", "pretrain", "teacher", Some(0.004), 0.003, 0, 0, 0, 0, 4_100_000, 4.5e13, 149.0),
    ("sft", "sft", "teacher", Some(0.313), 0.02, 200, 0, 0, 0, 61_000, 6.4e11, 14.6),
    ("grpo", "grpo", "teacher", Some(0.594), 0.021, 200, 3_200, 25_600, 0, 1_900_000, 2.4e13, 211.0),
    ("distill", "distill", "student", Some(0.512), 0.022, 200, 3_200, 3_000, 310_000, 640_000, 2.1e12, 41.0),
    ("dialogue", "dialogue", "student", Some(0.533), 0.022, 200, 3_200, 2_048, 190_000, 190_000, 1.3e12, 58.0),
];

fn make(run: &Run) {
    let ledger = run.ledger();
    for (name, accuracy, labels) in [("constant answer", 0.083, 0), (train::baselines::NGRAMS, 0.297, 200)] {
        let row = BaselineRow {
            name: name.into(),
            accuracy,
            low: accuracy - 0.012,
            high: accuracy + 0.012,
            n: 2000,
            labels,
            ..BaselineRow::default()
        };
        ledger.record_baseline(&row).unwrap();
    }
    for step in 1..=60 {
        let x = f64::from(step) / 60.0;
        let wave = (f64::from(step) * 1.7).sin() * 0.03;
        let metrics = StepMetrics::new("grpo", step as u64);
        let metrics = metrics.with("reward", 0.3 + 0.4 * x.sqrt() + wave).with("loss", 0.02 - wave / 4.0);
        let metrics =
            metrics.with("entropy", 1.4 * (1.0 - x).powi(2) + 0.3 - wave).with("grad_norm", 1.0 + 8.0 * wave.abs());
        let metrics = metrics.with("groups", 16.0).with("groups_all_equal", 2.0).with("groups_all_best", 0.0);
        run.log_step(&metrics).unwrap();
        if step % 10 == 0 {
            run.write_rollouts("grpo", step as u64, &[rollout(step), rollout(step + 1)]).unwrap();
        }
    }
    for step in 1..=500 {
        let loss = 5.0 / (1.0 + f64::from(step) / 40.0) + (f64::from(step) * 2.3).sin() * 0.2;
        run.log_step(&StepMetrics::new("pretrain", step as u64).with("loss", loss)).unwrap();
    }
    run.write_rollouts("dialogue", 1, &[taught()]).unwrap();
    for (index, l) in (0..).zip(ROAD) {
        let mut row = StageRow {
            index,
            stage: l.0.into(),
            kind: l.1.into(),
            model: l.2.into(),
            accuracy: l.3,
            low: l.3.map(|a| (a - l.4).max(0.0)),
            high: l.3.map(|a| a + l.4),
            n: if l.3.is_some() { 2000 } else { 0 },
            labels: l.5,
            answers_read: l.6,
            rollouts: l.7,
            teacher_tokens: l.8,
            train_tokens: l.9,
            flops: l.10,
            seconds: l.11,
            digest: (index > 0).then(|| blake3_like(l.0)),
            ..StageRow::default()
        };
        if let Some(accuracy) = l.3 {
            // On-policy distillation gets other cases right than distillation, so its gain is within the noise.
            let right =
                |case: usize| if l.0 == "dialogue" { 2000 - case } else { case + 1 } as f64 <= 2000.0 * accuracy;
            let correct: String = (0..2000).map(|case| if right(case) { '1' } else { '0' }).collect();
            row.extra.insert("correct".into(), correct.into());
        }
        if l.0 == "dialogue" {
            let bins = [(0.25, 0.21, 310), (0.5, 0.44, 520), (0.75, 0.69, 640), (0.95, 0.88, 530)];
            let bins: Vec<_> = bins.iter().map(|b| json!({"confidence": b.0, "accuracy": b.1, "n": b.2})).collect();
            let calibration = json!({"confidence": "answer_probability", "ece": 0.058, "bins": bins, "target_accuracy": 0.9, "coverage": 0.31, "threshold": 0.87});
            row.extra.insert("calibration".into(), calibration);
            row.extra.insert(
                "evaluation".into(),
                json!({"pass_at_k": 0.771, "parts": {"charge F1": 0.93, "article F1": 0.9}}),
            );
        }
        ledger.record_stage(&row).unwrap();
    }
    let text = "pretrain: 12 texts; left out: 3 that hold a <held-out> case".to_owned();
    let notice = Notice { kind: "texts_left_out".into(), stage: Some("pretrain".into()), text, count: 3 };
    ledger.record_notice(&notice).unwrap();
}

fn blake3_like(name: &str) -> String {
    name.bytes().cycle().take(32).map(|b| format!("{b:02x}")).collect()
}

fn rollout(step: i32) -> Rollout {
    let good = step >= 30;
    let completion = if good {
        "<think>盗窃，数额较大，自首。</think><answer>盗窃罪；第二百六十四条；一年二个月</answer>"
    } else {
        "<think>盗窃，盗窃</think><answer>诈骗罪；第二百六十六条"
    };
    let verdict =
        |rule: &str, outcome, value, reason: &str| Verdict { rule: rule.into(), outcome, value, reason: reason.into() };
    Rollout {
        case_id: if step % 10 == 0 { "case-a".into() } else { format!("case-{step}") },
        prompt: "被告人张某于2023年3月在某市火车站候车室内，趁被害人李某熟睡之机，窃得手机一部，价值人民币4,200元。案发后主动投案，如实供述。\n请给出罪名、法条与刑罚。".into(),
        answer: Some("盗窃罪；第二百六十四条；一年".into()),
        completion: completion.into(),
        tokens: (0..completion.chars().count() as u32).collect(),
        logprobs: vec![-0.3; completion.chars().count()],
        reward: Some(if good { 0.75 } else { 0.0 }),
        advantage: Some(0.4),
        finished: good,
        verdicts: vec![
            verdict("format", VerdictOutcome::Score, Some(f64::from(u8::from(good))), if good { "one answer block" } else { "no </answer>" }),
            verdict("statute", if good { VerdictOutcome::Score } else { VerdictOutcome::Abstain }, good.then_some(0.5), "article 264 exists"),
            verdict("judge", VerdictOutcome::TimedOut, None, "given up after 2 s"),
        ],
        ..Rollout::default()
    }
}

fn taught() -> Rollout {
    let row = rollout(30);
    let n = row.tokens.len();
    Rollout { logprobs_teacher: Some((0..n).map(|i| -((i * i % 37) as f32) / 6.0).collect()), ..row }
}

fn pages(folder: &Path) -> (String, String) {
    let runs = Runs::open(folder);
    let run = runs.create_or_resume("judgment-7", RECIPE).unwrap();
    make(&run);
    let view = runs.view("judgment-7").unwrap();
    let pieces = |_: &str, tokens: &[u32]| {
        let text: Vec<String> = rollout(30).completion.chars().map(String::from).collect();
        (tokens.len() == text.len()).then_some(text)
    };
    let report = Report::gather(&view, &pieces).unwrap();
    assert_eq!(summary(&view).unwrap()["stages"][3]["answers_read"], 3200);
    (page::html(&report, Language::English), page::html(&report, Language::Chinese))
}

/// If this variable names a folder, the pages are kept there for viewing.
const KEEP: &str = "FERULE_KEEP_REPORT";

#[test]
fn the_page_tells_everything_in_both_languages() {
    let folder = tempfile::tempdir().unwrap();
    let (english, chinese) = pages(folder.path());
    if let Ok(keep) = std::env::var(KEEP) {
        fs::write(Path::new(&keep).join("en.html"), &english).unwrap();
        fs::write(Path::new(&keep).join("zh.html"), &chinese).unwrap();
    }
    for told in [
        "<html lang=\"en\">",
        "judgment-7",
        "seed 7",
        "character n-grams, linear",
        "<b>59.4</b> <small>± 2.1",
        "3\u{202f}200",
        "2.40 × 10¹³",
        "3 min 31 s",
        "reward <b>0.75</b>",
        "cut short",
        "<b class=\"warn\">timed out</b> <i><bdi>given up after 2 s</bdi></i>",
        "rule format",
        "ECE 5.8",
        "the same prompt at several steps",
        "evaluation · pass_at_k",
        "evaluation · parts · charge F1",
        "31.0 % of the cases can be answered with 90.0 % of the answers right",
        "Built-in cases are synthetic",
        "法发〔2022〕33号",
        "120 of 960 groups were left out, because all their rewards were equal.",
        "3 that hold a &lt;held-out&gt; case",
        "groups_all_equal",
        "still at work",
        "class=\"t4\"",
        "learning_rate = 2e-4",
    ] {
        assert!(english.contains(told), "{told} is missing");
    }
    for told in [
        "<html lang=\"zh-CN\">",
        "运行报告",
        "准确率",
        "内置案例均为合成",
        "不得代替法官裁判",
        "同一提示在不同步的回答",
        "字符 n-gram 线性模型",
        "960 组中，有 120 组因奖励全部相等而被略去。",
    ] {
        assert!(chinese.contains(told), "{told} is missing");
    }
}

#[test]
fn a_change_within_the_noise_is_marked() {
    let folder = tempfile::tempdir().unwrap();
    let (english, _) = pages(folder.path());
    // GRPO is clearly better than fine-tuning. The student is not compared with the teacher.
    assert_eq!(english.matches("\">≈ ").count(), 1);
    let row = &english[english.find("<th scope=\"row\"><bdi>dialogue").unwrap()..];
    assert!(row[..row.find("</tr>").unwrap()].contains("\">≈ +2.1</abbr>"));
}

#[test]
fn nothing_in_the_page_runs_or_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let (english, chinese) = pages(folder.path());
    for page in [&english, &chinese] {
        for refused in
            ["<script", "http:", "https:", "url(", "@import", "<link", "<img", "javascript:", "onload", "<b>not markup"]
        {
            assert!(!page.contains(refused), "{refused}");
        }
        // The hash is that of the style sheet as it stands in the page.
        let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
        let hash = BASE64_STANDARD.encode(Sha256::digest(style));
        let policy =
            format!("content=\"default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\"");
        assert!(page.contains(&policy) && !page.contains(" style=\""));
        for element in ["bdi", "section", "table", "figure", "svg", "article", "ul", "pre", "tr", "span"] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "<{element}>");
        }
    }
}

#[test]
fn a_run_that_has_only_begun_is_a_page_too() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::open(folder.path());
    drop(runs.create_or_resume("a", "").unwrap());
    let report = Report::gather(&runs.view("a").unwrap(), &|_, _| None).unwrap();
    let page = page::html(&report, Language::English);
    assert!(page.contains(Language::English.words().nothing_yet) && !page.contains("id=\"curves\""), "{page}");
    assert!(!page.contains("Built-in cases"), "only judgment speaks of judgments");
    assert!(page.contains("No completion was cut short"), "{page}");
}

//! What the ledger and the rollout files give back.

use store::{
    BaselineRow, Label, LabelKind, Metered, RecordUse, Rollout, Runs, SoftLabels, StageRow, StoreError, Verdict,
    VerdictOutcome, rollouts,
};

fn rollout() -> Rollout {
    Rollout {
        case_id: "c0ffee".into(),
        sample: 1,
        prompt: "事实：盗窃一辆自行车。".into(),
        answer: Some("盗窃罪".into()),
        completion: "<think>…</think><answer>盗窃罪</answer>".into(),
        tokens: vec![5, 0, u32::MAX],
        logprobs: vec![-0.1, -1e-30, f32::NEG_INFINITY],
        given: Some(vec![false, true, false]),
        logprobs_teacher: Some(vec![-0.2, -0.3, -0.4]),
        soft: Some(SoftLabels {
            temperature: 2.0,
            k: 2,
            ids: vec![5, 7, 0, 9, u32::MAX, 1],
            logprobs: vec![-0.1, -3.0, -0.5, -1.5, -0.25, f32::NEG_INFINITY],
            tail: vec![0.05, 0.25, 0.0],
        }),
        reward: Some(0.1 + 0.2),
        advantage: Some(-1.5),
        finished: true,
        verdicts: vec![
            Verdict {
                rule: "format".into(),
                outcome: VerdictOutcome::Score,
                value: Some(1.0),
                reason: "one answer".into(),
            },
            Verdict { rule: "judge".into(), outcome: VerdictOutcome::TimedOut, value: None, reason: "2 s".into() },
            Verdict { rule: "python".into(), outcome: VerdictOutcome::Failed, value: None, reason: "it died".into() },
            Verdict { rule: "statute".into(), outcome: VerdictOutcome::Abstain, value: None, reason: String::new() },
        ],
    }
}

#[test]
fn rollouts_come_back_as_they_were_and_equal_ones_give_equal_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.parquet");
    let bare = Rollout { case_id: "empty".into(), ..Rollout::default() };
    let some = Rollout { given: None, logprobs_teacher: None, soft: None, answer: None, reward: None, ..rollout() };
    let rows = [rollout(), bare, some, rollout()];
    let bytes = rollouts::encode(&path, "grpo", 12, &rows).unwrap();
    assert_eq!(bytes, rollouts::encode(&path, "grpo", 12, &rows).unwrap());
    assert_ne!(bytes, rollouts::encode(&path, "grpo", 13, &rows).unwrap());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(rollouts::read(&path).unwrap(), rows);

    std::fs::write(&path, rollouts::encode(&path, "grpo", 12, &[]).unwrap()).unwrap();
    assert!(rollouts::read(&path).unwrap().is_empty());
}

#[test]
fn broken_rollout_files_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step.parquet");
    let bytes = rollouts::encode(&path, "grpo", 1, &vec![rollout(); 40]).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = rollouts::read(&path).unwrap_err();
        assert!(matches!(error, StoreError::Parquet { .. } | StoreError::Damaged { .. }), "{length}: {error}");
        assert!(error.to_string().contains("step.parquet"), "{error}");
    }
}

#[test]
fn rows_come_back_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::open(folder.path());
    let run = runs.create_or_resume("a", "seed = 1").unwrap();
    let extra = serde_json::json!({"pass@8": 0.75, "parts": {"charge": 0.1}}).as_object().unwrap().clone();
    let stage = StageRow {
        index: 3,
        stage: "grpo".into(),
        kind: "grpo".into(),
        model: "teacher".into(),
        accuracy: Some(0.1 + 0.2),
        low: Some(0.25),
        high: None,
        n: 2000,
        labels: 200,
        answers_read: 4096,
        rollouts: 1,
        teacher_tokens: 2,
        train_tokens: 3,
        flops: 1.2e14,
        seconds: 0.5,
        cost: Some(0.01),
        digest: Some("d".into()),
        extra: extra.clone(),
    };
    let baseline = BaselineRow { name: "constant".into(), accuracy: 0.2, n: 5, extra, ..BaselineRow::default() };
    run.ledger().record_stage(&stage).unwrap();
    run.ledger().record_baseline(&baseline).unwrap();
    assert!(run.ledger().record_stage(&stage).is_err(), "a stage is finished once");
    std::fs::create_dir_all(run.begin_export("grpo").unwrap().finish().unwrap()).unwrap();

    let view = runs.view("a").unwrap();
    assert_eq!(view.ledger().stages().unwrap(), std::slice::from_ref(&stage));
    assert_eq!(view.ledger().baselines().unwrap(), [baseline]);
    assert_eq!(view.recipe().unwrap()["seed"].as_integer(), Some(1));
    assert_eq!(view.final_model("teacher").unwrap().unwrap().1, run.folder().join("models/grpo"));
    assert!(view.final_model("student").unwrap().is_none());
    assert!(view.ledger().record_stage(&stage).is_err(), "a view cannot write");
    let json = serde_json::to_value(&stage).unwrap();
    for key in ["stage", "kind", "model", "accuracy", "low", "high", "n", "labels", "answers_read", "rollouts"] {
        assert!(json.get(key).is_some(), "{key}");
    }
    let error = runs.view("b").unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("runs there: a"), "{error}");
}

#[test]
fn meters_count_cases_and_lineage_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let runs = Runs::open(folder.path());
    runs.withdraw("gone", "asked by the person").unwrap();
    let run = runs.create_or_resume("a", "").unwrap();
    assert_eq!(run.ledger().withdrawn().unwrap(), ["gone"]);
    let ledger = run.ledger();
    let label = |id: &str, stage: &str, kind| Label { record_id: id.into(), stage: stage.into(), kind };
    let demonstration = label("r1", "sft", LabelKind::Demonstration);
    ledger.meter_labels(&[demonstration.clone(), demonstration, label("r2", "sft", LabelKind::Demonstration)]).unwrap();
    ledger.meter_labels(&[label("r1", "sft", LabelKind::Judged), label("r1", "sft-2", LabelKind::Judged)]).unwrap();
    ledger.meter_answers("grpo", &["r1", "r7", "r7"]).unwrap();
    let document = RecordUse { record_id: "doc".into(), stage: "pretrain".into(), role: "document".into() };
    ledger.record_uses(&[document.clone(), document]).unwrap();
    ledger.record_lineage("d0", "pretrain", &[]).unwrap();
    ledger.record_lineage("d0", "pretrain", &[]).unwrap();
    ledger.record_lineage("d1", "sft", &["d0"]).unwrap();
    ledger.record_lineage("d2", "grpo", &["d1"]).unwrap();
    ledger.record_lineage("s0", "student-pretrain", &[]).unwrap();
    ledger.record_lineage("s1", "distill", &["s0", "d2"]).unwrap();

    assert_eq!(ledger.metered(&["sft"]).unwrap(), Metered { labels: 2, answers_read: 0 });
    assert_eq!(ledger.metered(&["sft", "sft-2", "grpo"]).unwrap(), Metered { labels: 2, answers_read: 2 });
    assert_eq!(ledger.touched_by("doc").unwrap(), ["d0", "d1", "d2", "s1"]);
    assert_eq!(ledger.touched_by("r7").unwrap(), ["d2", "s1"]);
    assert!(ledger.touched_by("never").unwrap().is_empty());
    assert_eq!(runs.touched_by("r7").unwrap(), [("a".to_owned(), "d2".to_owned()), ("a".into(), "s1".into())]);
    drop(run);

    runs.withdraw("r7", "asked too").unwrap();
    runs.withdraw("r7", "asked twice").unwrap();
    let run = runs.create_or_resume("a", "").unwrap();
    assert_eq!(run.ledger().withdrawn().unwrap(), ["gone"], "what a run was told at its beginning stays");
    assert_eq!(run.withdrawn_since().iter().collect::<Vec<_>>(), ["r7"]);
    let list = runs.list().unwrap();
    assert_eq!((list.len(), list[0].name.as_str(), list[0].locked), (1, "a", true));
}

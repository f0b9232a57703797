//! All texts of the page, in English and in Chinese.
//!
//! Names that a recipe gave (stages, rules, numbers) are not translated.
//!
//! Read next: [`super::page`].

use train::baselines;

/// The page's language.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

impl Language {
    /// The texts in the language.
    pub fn words(self) -> &'static Words {
        match self {
            Language::English => &ENGLISH,
            Language::Chinese => &CHINESE,
        }
    }
}

/// The texts. Fields are named after their meaning.
#[derive(Debug)]
pub struct Words {
    /// For `<html lang>`.
    pub code: &'static str,
    /// Before the run's name.
    pub report: &'static str,
    /// Before the seed.
    pub seed: &'static str,
    /// Before the task.
    pub task: &'static str,
    /// Shown while a process still works on the run.
    pub unfinished: &'static str,
    /// How often the run was resumed; `{}` is the number.
    pub taken_up: &'static str,
    /// Heading of the caveats.
    pub honest: &'static str,
    /// Caveats for every reader.
    pub honest_always: &'static [&'static str],
    /// Further caveats for judgments.
    pub honest_judgment: &'static [&'static str],
    /// Heading.
    pub ladder: &'static str,
    /// What the ladder's figures mean.
    pub ladder_note: &'static str,
    /// The ladder's columns.
    pub columns: [&'static str; 11],
    /// The names of baselines on the page, by their names in the ledger.
    pub baselines: &'static [(&'static str, &'static str)],
    /// Last row of the ladder.
    pub total: &'static str,
    /// Before a difference; `{}` is the previous row.
    pub change: &'static str,
    /// For a difference within the noise.
    pub within_noise: &'static str,
    /// If no stage is finished.
    pub nothing_yet: &'static str,
    /// Heading.
    pub curves: &'static str,
    /// Axis; `{}` is the first and the last step.
    pub steps: &'static str,
    /// Opens the other curves of a stage; `{}` is their number.
    pub more_curves: &'static str,
    /// For curves with too many points.
    pub binned: &'static str,
    /// For a curve without a finite point.
    pub not_finite: &'static str,
    /// Heading.
    pub transcripts: &'static str,
    /// If all completions answer the same prompt.
    pub same_prompt: &'static str,
    /// If no prompt recurs.
    pub different_prompts: &'static str,
    /// Before the known answer.
    pub answer: &'static str,
    /// For a completion; `{}` is the step.
    pub step: &'static str,
    /// Before a reward.
    pub reward: &'static str,
    /// If no rule judged it.
    pub not_judged: &'static str,
    /// The teacher's mean probability of the completion's tokens.
    pub agreement: &'static str,
    /// If the rules gave no reward; each verdict gives the reason.
    pub no_reward: &'static str,
    /// After a number of tokens.
    pub tokens: &'static str,
    /// For a completion without its end token.
    pub cut_short: &'static str,
    /// For a verdict.
    pub abstained: &'static str,
    /// For a verdict.
    pub failed: &'static str,
    /// For a verdict.
    pub timed_out: &'static str,
    /// In a token's title.
    pub teacher: &'static str,
    /// In a token's title.
    pub student: &'static str,
    /// Before the tints.
    pub tint_legend: &'static str,
    /// Heading.
    pub calibration: &'static str,
    /// The meaning of the table.
    pub calibration_note: &'static str,
    /// How much can be answered at a chosen accuracy: `{coverage}` and `{target}` in per cent.
    pub coverage: &'static str,
    /// The confidence below which to abstain; `{}` in per cent.
    pub threshold: &'static str,
    /// Columns of the calibration table.
    pub calibration_columns: [&'static str; 4],
    /// Heading.
    pub further: &'static str,
    /// Heading.
    pub notices: &'static str,
    /// If there are none.
    pub no_notices: &'static str,
    /// Columns of the notices.
    pub notice_columns: [&'static str; 4],
    /// Sentences by kind; `{count}` and `{of}` are numbers. A notice of another kind is shown with its own text.
    pub findings: &'static [(&'static str, &'static str)],
    /// Heading.
    pub provenance: &'static str,
    /// Columns of provenance.
    pub provenance_columns: [&'static str; 3],
    /// Heading.
    pub recipe: &'static str,
}

impl Words {
    /// The name of a baseline on the page.
    pub fn baseline<'a>(&self, name: &'a str) -> &'a str {
        self.baselines.iter().find(|(ledger, _)| *ledger == name).map_or(name, |(_, here)| here)
    }

    /// A sentence for `count` of `of`; none for a kind that has its own text.
    pub fn finding(&self, kind: &str, count: u64, of: u64) -> Option<String> {
        let (_, sentence) = self.findings.iter().find(|(known, _)| *known == kind)?;
        Some(sentence.replace("{count}", &count.to_string()).replace("{of}", &of.to_string()))
    }
}

const ENGLISH: Words = Words {
    code: "en",
    report: "Report of the run",
    seed: "seed",
    task: "task",
    unfinished: "a process was still at work on this run when the page was made",
    taken_up: "interrupted and taken up again {} times",
    honest: "Before you trust it",
    honest_always: &[
        "Intervals are over the held-out cases within this one seed; another seed may land outside them.",
        "Reasoning that a model generates need not be the cause of its answer.",
    ],
    honest_judgment: &[
        "Built-in cases are synthetic: their figures say nothing about real courts.",
        "The model estimates what courts decided, not what is lawful or just. It is not legal advice.",
        "It must not decide or recommend a sentence. The Supreme People’s Court (法发〔2022〕33号) leaves judgment to the judge.",
    ],
    ladder: "The ladder",
    ladder_note: "Accuracy on held-out cases in per cent, with its interval. Labels and answers read count distinct cases behind the model of that row: \
        labels are cases that a person demonstrated or judged, answers read are cases whose known answer a rule looked at. The last figure is the change \
        from the row before of the same model, paired case by case; ≈ marks a change within the noise: its 95 % interval holds zero.",
    columns: [
        "stage",
        "accuracy, %",
        "model",
        "labels",
        "answers read",
        "rollouts",
        "teacher tokens",
        "train tokens",
        "FLOPs",
        "time",
        "cost",
    ],
    baselines: &[],
    total: "whole road",
    change: "change from {}, paired case by case",
    within_noise: "within the noise: the interval holds zero",
    nothing_yet: "No stage is finished yet.",
    curves: "Curves",
    steps: "steps {}",
    more_curves: "{} more",
    binned: "Where a curve has more than 240 steps, the line is the mean of neighbouring ones and the band reaches from the least to the greatest.",
    not_finite: "no finite value was logged",
    transcripts: "In its own words",
    same_prompt: "the same prompt at several steps",
    different_prompts: "no prompt was sampled twice; one completion of each of several steps",
    answer: "Known answer:",
    step: "step {}",
    reward: "reward",
    not_judged: "not judged",
    agreement: "the teacher’s probability of a token, geometric mean:",
    no_reward: "no reward",
    tokens: "tokens",
    cut_short: "cut short",
    abstained: "abstained",
    failed: "failed",
    timed_out: "timed out",
    teacher: "teacher",
    student: "student",
    tint_legend: "Probability that the teacher gave to the student’s token:",
    calibration: "Calibration",
    calibration_note: "Of the held-out cases on which the model was so sure of its answer, how many were right. Confidence is the probability that it \
        gives to its own answer after its reasoning. ECE: mean distance between the two, in points. The threshold is chosen on these same cases.",
    coverage: "{coverage} % of the cases can be answered with {target} % of the answers right",
    threshold: "below a confidence of {} %, ask a person",
    calibration_columns: ["confidence, %", "right, %", "cases", ""],
    further: "Further figures",
    notices: "What must not be silent",
    no_notices: "No completion was cut short; none that was to teach was left without a reward or left out with its group; every step made an update; \
        no text, baseline or checkpoint was left out.",
    notice_columns: ["stage", "what", "times", "in words"],
    findings: &[
        ("completions_unfinished", "{count} of {of} sampled completions did not end before the length limit."),
        (
            "completions_abstained",
            "{count} of {of} completions have no reward, because every rule abstained; they taught nothing.",
        ),
        (
            "completions_failed",
            "{count} of {of} completions have no reward, because a rule failed; they taught nothing.",
        ),
        (
            "completions_timed_out",
            "{count} of {of} completions have no reward, because a rule timed out; they taught nothing.",
        ),
        (
            "completions_not_kept",
            "{count} of {of} completions are not in the data set: they did not end, or their reward was too low.",
        ),
        ("groups_all_equal", "{count} of {of} groups were left out, because all their rewards were equal."),
        (
            "groups_all_best",
            "{count} of {of} groups were left out, because all their rewards were the best possible: solved.",
        ),
        (
            "groups_too_small",
            "{count} of {of} groups were left out, because fewer than two of their completions have a reward.",
        ),
        ("steps_without_update", "{count} of {of} steps made no update, because no group was left to learn from."),
        (
            "stage_without_update",
            "The stage made no update in its {of} steps, because no group was left to learn from: its weights are those that it began with.",
        ),
        ("validation_unfinished", "{count} of {of} answers to validation cases did not end before the length limit."),
        ("watched_unfinished", "{count} of {of} answers to the watched prompts did not end before the length limit."),
        (
            "baseline_unfinished",
            "{count} of {of} answers of the base model with examples did not end before the length limit.",
        ),
        ("heldout_unfinished", "{count} of {of} answers to held-out cases did not end before the length limit."),
        (
            "unseen_unfinished",
            "{count} of {of} answers to held-out cases of unseen forms did not end before the length limit.",
        ),
        (
            "not_counted",
            "In {count} of {of} steps an older Ferule counted neither completions without a reward nor groups that were left out; the curves show what it logged.",
        ),
    ],
    provenance: "Weights",
    provenance_columns: ["stage", "model", "digest (BLAKE3)"],
    recipe: "The resolved recipe",
};

const CHINESE: Words = Words {
    code: "zh-CN",
    report: "运行报告",
    seed: "随机种子",
    task: "任务",
    unfinished: "生成本页时，仍有进程在执行此次运行",
    taken_up: "中断后续跑 {} 次",
    honest: "采信之前",
    honest_always: &[
        "区间只反映这一个随机种子内留出案例的抽样误差；换一个种子，结果可能落在区间之外。",
        "模型写出的推理，未必是它得出答案的真正原因。",
    ],
    honest_judgment: &[
        "内置案例均为合成，其数字不说明任何真实法院的情况。",
        "模型估计的是法院作出了什么判决，而不是什么合法、什么公正；不构成法律意见。",
        "不得用它决定或建议刑罚。最高人民法院（法发〔2022〕33号）明确：人工智能不得代替法官裁判。",
    ],
    ladder: "阶梯",
    ladder_note: "准确率为留出案例上的百分比及其区间。“标注”与“读取答案”按该行模型背后的不同案例计数：标注是由人示范或评判过的案例，\
        读取答案是规则查看过已知答案的案例。末尾的数是较同一模型上一行的变化（逐案配对）；≈ 表示该变化在噪声之内：其 95% 区间包含零。",
    columns: ["阶段", "准确率 %", "模型", "标注", "读取答案", "采样", "教师词元", "训练词元", "FLOPs", "用时", "费用"],
    baselines: &[
        (baselines::CONSTANT, "恒定答案"),
        (baselines::NGRAMS, "字符 n-gram 线性模型"),
        (baselines::NEAREST, "字符 TF-IDF 最近五例"),
        (baselines::FEW_SHOT, "基座模型，少量示例"),
    ],
    total: "全程",
    change: "较 {} 的变化（逐案配对）",
    within_noise: "在噪声之内：区间包含零",
    nothing_yet: "尚无阶段完成。",
    curves: "曲线",
    steps: "第 {} 步",
    more_curves: "其余 {} 条",
    binned: "步数超过 240 的曲线，线为相邻若干步的均值，带为最小值到最大值。",
    not_finite: "没有记录到有限的数值",
    transcripts: "模型自己的话",
    same_prompt: "同一提示在不同步的回答",
    different_prompts: "没有提示被采样两次；以下各步各取一例",
    answer: "已知答案：",
    step: "第 {} 步",
    reward: "奖励",
    not_judged: "未评判",
    agreement: "教师给予每个词元的概率（几何平均）：",
    no_reward: "无奖励",
    tokens: "词元",
    cut_short: "被截断",
    abstained: "弃权",
    failed: "失败",
    timed_out: "超时",
    teacher: "教师",
    student: "学生",
    tint_legend: "教师给予学生所写词元的概率：",
    calibration: "校准",
    calibration_note: "在模型对答案有如此把握的留出案例中，实际答对的比例。把握是模型在推理之后给予自己答案的概率。ECE 为两者之差的平均，单位为百分点。阈值就在这些案例上选定。",
    coverage: "若要求所答之中 {target} % 正确，可回答 {coverage} % 的案例",
    threshold: "把握低于 {} % 时，应交给人判断",
    calibration_columns: ["把握 %", "答对 %", "案例数", ""],
    further: "其他数字",
    notices: "必须说明之事",
    no_notices: "没有回答被截断；用于训练的回答无一缺少奖励，也无一随组被略去；每步均有更新；没有文本、基线或检查点被略去。",
    notice_columns: ["阶段", "事项", "次数", "说明"],
    findings: &[
        ("completions_unfinished", "{of} 个采样回答中，有 {count} 个到长度上限仍未结束。"),
        ("completions_abstained", "{of} 个回答中，有 {count} 个因所有规则弃权而没有奖励，未用于训练。"),
        ("completions_failed", "{of} 个回答中，有 {count} 个因规则失败而没有奖励，未用于训练。"),
        ("completions_timed_out", "{of} 个回答中，有 {count} 个因规则超时而没有奖励，未用于训练。"),
        ("completions_not_kept", "{of} 个回答中，有 {count} 个没有进入数据集：未结束，或奖励过低。"),
        ("groups_all_equal", "{of} 组中，有 {count} 组因奖励全部相等而被略去。"),
        ("groups_all_best", "{of} 组中，有 {count} 组因奖励全部为最高（已解出）而被略去。"),
        ("groups_too_small", "{of} 组中，有 {count} 组因有奖励的回答不足两个而被略去。"),
        ("steps_without_update", "{of} 步中，有 {count} 步没有可学的组，未作更新。"),
        ("stage_without_update", "该阶段 {of} 步均无可学的组，未作任何更新：权重与开始时相同。"),
        ("validation_unfinished", "{of} 个验证案例的回答中，有 {count} 个到长度上限仍未结束。"),
        ("watched_unfinished", "{of} 个对固定提示的回答中，有 {count} 个到长度上限仍未结束。"),
        ("baseline_unfinished", "基座模型（少量示例）的 {of} 个回答中，有 {count} 个到长度上限仍未结束。"),
        ("heldout_unfinished", "{of} 个留出案例的回答中，有 {count} 个到长度上限仍未结束。"),
        ("unseen_unfinished", "{of} 个未见形式的留出案例的回答中，有 {count} 个到长度上限仍未结束。"),
        (
            "not_counted",
            "{of} 步中，有 {count} 步由较早版本的 Ferule 执行，未统计没有奖励的回答与被略去的组；其记录见曲线。",
        ),
    ],
    provenance: "权重",
    provenance_columns: ["阶段", "模型", "摘要（BLAKE3）"],
    recipe: "解析后的配方",
};

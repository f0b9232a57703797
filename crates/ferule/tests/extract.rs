//! `ferule data extract`: from raw documents to found labels, through the binary. All documents are invented.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{Run, ferule};

/// An invented judgment of one defendant, with what misleads a reader of such: an older conviction, the prosecutor's proposal, a statute behind the signature.
const SHOES: &str = "某县人民法院 刑事判决书 （2019）某0101刑初7号 公诉机关某县人民检察院。 \
被告人赵某，男，1990年1月1日出生，农民。2012年因犯抢劫罪被某县人民法院判处有期徒刑五年，并处罚金9000元。 \
某县人民检察院指控被告人赵某犯盗窃罪，向本院提起公诉。现已审理终结。 \
某县人民检察院指控，2019年3月2日夜，赵某翻墙进入某鞋厂的仓库，搬走皮鞋四十双，共值八千元。公诉机关认为应当以盗窃罪追究其刑事责任，建议判处有期徒刑二年。 \
经审理查明，2019年3月2日夜，赵某翻墙进入某鞋厂的仓库，搬走皮鞋四十双，次日卖给过路人，得款三千元。 \
本院认为，被告人赵某秘密窃取他人财物，数额较大，其行为已构成盗窃罪。依照《中华人民共和国刑法》第二百六十四条、第六十七条第三款、五十二条及《中华人民共和国刑事诉讼法》第二百零一条之规定，判决如下： \
一、被告人赵某犯盗窃罪，判处有期徒刑九个月，缓刑一年，并处罚金人民币二千元（罚金限判决生效后十日内缴纳）。 \
二、责令被告人赵某退赔三千元。 如不服本判决，可在接到判决书的第二日起十日内提出上诉。 审判员钱某 二〇一九年五月一日 \
附：《中华人民共和国刑法》 第二百六十四条盗窃公私财物，数额特别巨大的，处十年以上有期徒刑或者无期徒刑，并处罚金。";

const TWO_CHARGES: &str = "某市某区人民法院\n刑事判决书\n（2018）某0202刑初31号\n公诉机关某市某区人民检察院。\n被告人孙某，女，1985年出生。\n\
现已审理终结。\n经审理查明，2018年1月至2月，孙某在家中三次向李某出售冰毒共两克，又先后五次让周某、吴某在其卧室吸食。\n\
本院认为，被告人孙某的行为已构成贩卖毒品罪、容留他人吸毒罪。依照《中华人民共和国刑法》第三百四十七条第四款、第三百五十四条、第六十九条\n之规定，判决如下：\n\
被告人孙某犯贩卖毒品罪，判处有期徒刑一年，并处罚金3，000元；犯容留他人吸毒罪，判处有期徒\n刑八个月，并处罚金2000元。数罪并罚，总和刑期一年八个月，决定执行有期徒刑一年四个月，并处罚金5000元。\n\
如不服本判决，可提出上诉。\n审判长郑某";

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).expect("OUT").lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn extract(input: &Path, output: &Path, options: &[&str]) -> Run {
    let mut arguments = vec!["data", "extract", "judgment", input.to_str().unwrap(), output.to_str().unwrap()];
    arguments.extend(options);
    ferule(&arguments, "")
}

/// The characters of a section.
fn section(text: &str, row: &Value, name: &str) -> String {
    let bound = |at: usize| row["sections"][name][at].as_u64().expect("a bound") as usize;
    text.chars().skip(bound(0)).take(bound(1) - bound(0)).collect()
}

#[test]
fn a_file_of_documents_becomes_labels_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let changed = |from: &str, to: &str| {
        let text = SHOES.replace(from, to);
        assert_ne!(text, SHOES, "{from}");
        text
    };
    let refused = [
        (changed("刑初7号", "刑终7号"), "it is an appeal"),
        (changed("刑初7号", "刑再7号"), "it is a retrial"),
        (changed("刑事判决书", "刑事裁定书"), "it is a ruling"),
        (changed("刑事判决书", "决定书"), "it is a decision"),
        (changed("刑事判决书 （2019）某0101刑初7号", "民事判决书 （2019）某0101民初7号"), "it is no criminal judgment"),
        (changed("判决如下", "特此说明"), "it holds no verdict"),
        (changed("二、责令", "二、被告人王某犯盗窃罪，判处拘役三个月。 三、责令"), "it has several defendants"),
        (changed("一、被告人", "一、撤销某院对赵某宣告的缓刑。 二、被告人"), "an older sentence goes into this one"),
        (changed("有期徒刑九个月", "有期徒刑个九月"), "its term cannot be read"),
        (changed("罚金人民币二千元", "罚金人民币若干元"), "its fine cannot be read"),
        ("今天天气很好。".to_string(), "it does not say that it is of the first instance"),
    ];
    let mut rows = vec![json!({ "id": "shoes", "text": SHOES }), json!({ "text": TWO_CHARGES })];
    rows.extend(refused.iter().map(|(text, _)| json!({ "text": text })));
    fs::write(&input, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let counts = extract(&input, &output, &["--json"]).json().remove(0);
    assert_eq!((&counts["documents"], &counts["full"], &counts["refused"]), (&json!(13), &json!(2), &json!(11)));
    assert_eq!(counts["why"]["it is an appeal"], 1);
    assert!(counts["bytes"].as_u64().unwrap() > 9000 && counts["seconds"].is_number(), "{counts}");

    let found = lines(&output);
    assert_eq!(found.len(), 13);
    let sentence = json!({ "kind": "有期徒刑", "months": 9, "probation_months": 12, "fine": 2000 });
    let mut charge = json!({ "charge": "盗窃" });
    let mut defendant = json!({ "name": "赵某", "charges": [] });
    for part in [&mut charge, &mut defendant] {
        part.as_object_mut().unwrap().extend(sentence.as_object().unwrap().clone());
    }
    defendant["charges"] = json!([charge]);
    assert_eq!((&found[0]["id"], &found[0]["status"]), (&json!("shoes"), &json!("full")));
    assert_eq!(found[0]["defendants"], json!([defendant]));
    assert_eq!(found[0]["articles"], json!([52, 67, 264]));
    let case = &found[0]["case"];
    let labels = ["charges", "articles", "months", "life", "death"].map(|key| case[key].clone());
    assert_eq!(labels, [json!(["盗窃"]), json!([264]), json!(9), json!(false), json!(false)]);
    let fact = case["fact"].as_str().unwrap();
    assert!(
        fact.contains("皮鞋四十双") && !["盗窃罪", "判处", "有期徒刑"].iter().any(|word| fact.contains(word)),
        "{fact}"
    );
    assert!(section(SHOES, &found[0], "facts").ends_with("得款三千元。"));
    assert!(
        section(SHOES, &found[0], "reasoning").starts_with("本院认为")
            && section(SHOES, &found[0], "reasoning").ends_with("判决如下：")
    );
    let verdict = section(SHOES, &found[0], "verdict");
    assert!(verdict.starts_with("一、被告人赵某") && verdict.ends_with("提出上诉。"), "{verdict}");

    assert_eq!(found[1].get("id"), None);
    let two = &found[1]["defendants"][0];
    assert_eq!((&two["months"], &two["fine"], &two["charges"][0]["fine"]), (&json!(16), &json!(5000), &json!(3000)));
    assert_eq!(two["charges"][1]["months"], 8, "a line end within a clause");
    assert_eq!(found[1]["case"]["charges"], json!(["走私、贩卖、运输、制造毒品", "容留他人吸毒"]));
    assert_eq!(found[1]["articles"], json!([69, 347, 354]));
    for (row, (_, why)) in found[2..].iter().zip(&refused) {
        assert_eq!((&row["status"], &row["why"]), (&json!("refused"), &json!(why)));
        assert_eq!((&row["defendants"], row.get("case")), (&json!([]), None));
    }
    let text = extract(&input, &output, &[]);
    assert!(text.stdout.starts_with("2 of 13 documents have a clear label\n"), "{}", text.stdout);
}

#[test]
fn a_folder_is_read_by_name_in_any_encoding() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in"), folder.path().join("out.jsonl"));
    fs::create_dir(&input).unwrap();
    let (gb, _, _) = encoding_rs::GB18030.encode(SHOES);
    fs::write(input.join("b.txt"), &gb).unwrap();
    fs::write(input.join("a.txt"), TWO_CHARGES).unwrap();
    fs::write(input.join("c.pdf"), "%PDF").unwrap();
    assert_eq!(extract(&input, &output, &[]).code, 0);
    let ids: Vec<_> = lines(&output).iter().map(|row| (row["id"].clone(), row["status"].clone())).collect();
    assert_eq!(ids, [(json!("a"), json!("full")), (json!("b"), json!("full"))]);

    let file = folder.path().join("in.jsonl");
    let line = json!({ "id": 7, "text": SHOES }).to_string();
    let (gb, _, _) = encoding_rs::GB18030.encode(&line);
    fs::write(&file, &gb).unwrap();
    assert_eq!(extract(&file, &output, &[]).code, 0);
    assert_eq!(lines(&output)[0]["defendants"][0]["name"], "赵某");
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let good = json!({ "text": SHOES }).to_string();
    fs::write(&input, format!("{good}\n")).unwrap();
    assert_eq!(extract(&input, &output, &[]).code, 0);
    let before = fs::read(&output).unwrap();
    for bad in ["{\"text\": ", "{\"txt\": \"a\"}", "[]", "{\"text\": 3}"] {
        fs::write(&input, format!("{good}\n\n{bad}\n")).unwrap();
        let run = extract(&input, &output, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{bad}");
        assert!(run.stderr.contains("in.jsonl:3: ") && run.stderr.contains("hint: "), "{}", run.stderr);
        assert_eq!(fs::read(&output).unwrap(), before, "{bad}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn a_file_of_somebody_else_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    fs::write(&input, json!({ "text": SHOES }).to_string()).unwrap();
    fs::write(&output, "{\"fact\": \"labelled by hand\"}\n").unwrap();
    let run = extract(&input, &output, &[]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("did not write it") && run.stderr.contains("hint: "), "{}", run.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), "{\"fact\": \"labelled by hand\"}\n");
    assert_eq!(extract(&input, &output, &["--force"]).code, 0);
    // What the command wrote itself it replaces, and an empty file is nobody's.
    assert_eq!(extract(&input, &output, &[]).code, 0);
    fs::write(&output, "").unwrap();
    assert_eq!(extract(&input, &output, &[]).code, 0);
    assert_eq!(extract(&input, &input, &["--force"]).code, 2, "OUT is IN");
}

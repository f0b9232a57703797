//! Shows how Ferule reads a model's files, for comparison with other programs; `bench/peers/formats.py` runs it.
//!
//!     formats encode MODEL            JSON strings on stdin, one a line → token ids, one list a line
//!     formats render MODEL            chats on stdin (messages, tools, add_generation_prompt, variables) → JSON strings
//!     formats tensors MODEL FILE      every tensor in the order of its name, as little-endian f32, into FILE
//!     formats train SIZE FOLDER       JSON strings on stdin → a tokenizer of SIZE tokens
//!
//! MODEL is a Hugging Face folder (for the first two, a tokenizer is enough) or a GGUF file. A chat that the template
//! refuses gives `null`.

use lm::checkpoint::{self, gguf};
use lm::template::{Chat, ChatTemplate};
use lm::tokenizer::{Tokenizer, TrainOptions};
use serde_json::Value;
use std::error::Error;
use std::io::{BufRead, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["encode", model] => encode(Path::new(model)),
        ["render", model] => render(Path::new(model)),
        ["tensors", model, file] => tensors(Path::new(model), Path::new(file)),
        ["train", size, folder] => train(size.parse()?, Path::new(folder)),
        _ => Err("usage: formats encode MODEL | render MODEL | tensors MODEL FILE | train SIZE FOLDER".into()),
    }
}

fn lines() -> Result<Vec<Value>, Box<dyn Error>> {
    std::io::stdin().lock().lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

fn encode(model: &Path) -> Result<(), Box<dyn Error>> {
    let tokenizer =
        if model.is_dir() { Tokenizer::open_folder(model)? } else { gguf::File::open(model)?.tokenizer()? };
    let texts = lines()?;
    let start = Instant::now();
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| tokenizer.encode_with_special(text.as_str().unwrap_or_default())).collect();
    eprintln!("{:.2} s", start.elapsed().as_secs_f64());
    let mut out = BufWriter::new(std::io::stdout().lock());
    ids.iter().try_for_each(|ids| writeln!(out, "{}", Value::from(ids.clone())))?;
    Ok(())
}

fn render(model: &Path) -> Result<(), Box<dyn Error>> {
    let template =
        if model.is_dir() { ChatTemplate::open_folder(model)? } else { gguf::File::open(model)?.template()? };
    let template = template.ok_or("the model has no chat template")?;
    for chat in lines()? {
        let rendered = template.render(&Chat {
            messages: chat["messages"].as_array().map_or(&[], Vec::as_slice),
            tools: chat["tools"].as_array().map(Vec::as_slice),
            add_generation_prompt: chat["add_generation_prompt"] == true,
            variables: chat["variables"].as_object().cloned().unwrap_or_default(),
            now: None,
        });
        println!("{}", rendered.map_or(Value::Null, Value::from));
    }
    Ok(())
}

fn tensors(model: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let model = checkpoint::open(model)?;
    checkpoint::check(model.config(), model.tensors())?;
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    for name in model.tensors().names() {
        let shape = model.tensors().shape(&name).ok_or("a source has every tensor that it names")?;
        let mut values = vec![0.0f32; shape.iter().product()];
        model.tensors().read_f32(&name, &mut values)?;
        values.iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
    }
    Ok(out.flush()?)
}

fn train(size: usize, folder: &Path) -> Result<(), Box<dyn Error>> {
    let texts = lines()?;
    let start = Instant::now();
    let options = TrainOptions { vocab_size: size, ..TrainOptions::default() };
    let tokenizer = Tokenizer::train(texts.iter().filter_map(Value::as_str), &options, Path::new("the command line"))?;
    eprintln!("{:.2} s", start.elapsed().as_secs_f64());
    std::fs::create_dir_all(folder)?;
    Ok(tokenizer.save(folder)?)
}

use super::*;
use crate::error::told;
use crate::table::TensorRole;

fn read(text: &str) -> Result<Config, String> {
    Config::from_json(text, Path::new("config.json")).map_err(|error| told(&error))
}

/// A small valid configuration with `extra` fields added or replaced.
fn tiny(extra: &str) -> Result<Config, String> {
    let base = r#"{"model_type":"llama","hidden_size":8,"num_hidden_layers":2,"num_attention_heads":4,
        "intermediate_size":16,"vocab_size":32}"#;
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(base).unwrap();
    let extra: serde_json::Map<String, serde_json::Value> = serde_json::from_str(extra).unwrap();
    fields.extend(extra);
    read(&serde_json::to_string(&fields).unwrap())
}

#[test]
fn families_have_their_own_tensors() {
    let names = |kind: &str| -> Vec<String> {
        let config =
            tiny(&format!(r#"{{"model_type":"{kind}","head_dim":2,"num_key_value_heads":2,"sliding_window":null}}"#))
                .unwrap();
        config.tensors().into_iter().map(|spec| format!("{} {:?}", spec.name, spec.shape)).collect()
    };
    let llama = names("llama");
    assert_eq!(
        llama[..11],
        [
            "model.embed_tokens.weight [32, 8]",
            "model.layers.0.input_layernorm.weight [8]",
            "model.layers.0.self_attn.q_proj.weight [8, 8]",
            "model.layers.0.self_attn.k_proj.weight [4, 8]",
            "model.layers.0.self_attn.v_proj.weight [4, 8]",
            "model.layers.0.self_attn.o_proj.weight [8, 8]",
            "model.layers.0.post_attention_layernorm.weight [8]",
            "model.layers.0.mlp.gate_proj.weight [16, 8]",
            "model.layers.0.mlp.up_proj.weight [16, 8]",
            "model.layers.0.mlp.down_proj.weight [8, 16]",
            "model.layers.1.input_layernorm.weight [8]",
        ]
    );
    assert_eq!(llama[llama.len() - 2..], ["model.norm.weight [8]", "lm_head.weight [32, 8]"]);
    assert_eq!(names("mistral"), llama);
    assert_eq!(
        names("qwen2")[5..8],
        [
            "model.layers.0.self_attn.q_proj.bias [8]",
            "model.layers.0.self_attn.k_proj.bias [4]",
            "model.layers.0.self_attn.v_proj.bias [4]",
        ]
    );
    assert_eq!(
        names("qwen3")[5..7],
        ["model.layers.0.self_attn.q_norm.weight [2]", "model.layers.0.self_attn.k_norm.weight [2]"]
    );
}

#[test]
fn a_tied_head_is_one_tensor() {
    let untied = tiny("{}").unwrap();
    let tied = tiny(r#"{"tie_word_embeddings":true}"#).unwrap();
    assert_eq!(untied.parameters() - tied.parameters(), 32 * 8);
    assert!(tied.tensors().iter().all(|spec| spec.role != TensorRole::Head));
}

#[test]
fn both_spellings_of_rotary_scaling_agree() {
    let old = tiny(
        r#"{"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":8192}}"#,
    );
    let new = tiny(
        r#"{"rope_parameters":{"rope_theta":500000.0,"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,
            "high_freq_factor":4.0,"original_max_position_embeddings":8192}}"#,
    );
    assert_eq!(old.clone().unwrap(), new.unwrap());
    assert_eq!(read(&old.clone().unwrap().to_json()).unwrap(), old.unwrap());
}

#[test]
fn llama3_frequencies_match_the_reference() {
    // transformers 5.23, ROPE_INIT_FUNCTIONS["llama3"], head_dim 16, computed there in f32.
    let config = tiny(
        r#"{"head_dim":16,"rope_theta":500000.0,"rope_scaling":{"rope_type":"llama3","factor":32.0,
            "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":8192}}"#,
    );
    let expected = LLAMA3_FREQUENCIES;
    let found = config.unwrap().rotary_frequencies();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-6 * expected, "{found} is not {expected}");
    }
}

const LLAMA3_FREQUENCIES: [f64; 8] = [
    1.0,
    0.193922758102417,
    0.03760603070259094,
    0.00729266507551074,
    0.000429556705057621,
    8.570255886297673e-06,
    1.6619674170215148e-06,
    3.2229328894572973e-07,
];

#[test]
fn written_configurations_read_back() {
    for kind in ["llama", "mistral", "qwen2", "qwen3"] {
        let text = format!(
            r#"{{"model_type":"{kind}","head_dim":4,"eos_token_id":[1,2],"bos_token_id":0,"sliding_window":null}}"#
        );
        let config = tiny(&text).unwrap();
        assert_eq!(read(&config.to_json()).unwrap(), config);
        let text = format!(
            r#"{{"model_type":"{kind}","max_position_embeddings":16,"sliding_window":16,
            "layer_types":["full_attention","sliding_attention"]}}"#
        );
        let config = tiny(&text).unwrap();
        assert_eq!(config.sliding_window, Some(16));
        assert_eq!(read(&config.to_json()).unwrap(), config);
    }
}

#[test]
fn sliding_windows_are_refused_only_where_they_apply() {
    for (fields, refused) in [
        (r#"{"model_type":"mistral"}"#, true),
        (r#"{"model_type":"mistral","sliding_window":null}"#, false),
        (r#"{"model_type":"mistral","sliding_window":4096,"max_position_embeddings":4096}"#, false),
        (r#"{"model_type":"llama","sliding_window":16}"#, false),
        (r#"{"model_type":"qwen2","sliding_window":16,"use_sliding_window":false}"#, false),
        (r#"{"model_type":"qwen2","sliding_window":16,"use_sliding_window":true,"max_window_layers":2}"#, false),
        (r#"{"model_type":"qwen2","sliding_window":16,"use_sliding_window":true,"max_window_layers":1}"#, true),
        (r#"{"model_type":"qwen3","sliding_window":16,"layer_types":["full_attention","full_attention"]}"#, false),
        (r#"{"model_type":"qwen3","sliding_window":16,"layer_types":["full_attention","sliding_attention"]}"#, true),
    ] {
        let result = tiny(fields);
        assert_eq!(result.is_err(), refused, "{fields}: {result:?}");
    }
    let message = tiny(r#"{"model_type":"qwen2","sliding_window":16,"use_sliding_window":true,"max_window_layers":1}"#);
    let expected = "config.json: `sliding_window`: 1 of 2 layers see only the last 16 tokens, which is not supported in a \
        context of 32768\nhint: up to 16 tokens the model computes the same without a window: set \
        max_position_embeddings to 16";
    assert_eq!(message.unwrap_err(), expected);
}

#[test]
fn every_layer_has_a_kind() {
    use LayerType::*;
    let kinds = |fields: &str| {
        let config = tiny(fields).unwrap();
        (config.layer_types, config.sliding_window)
    };
    assert_eq!(kinds("{}"), (vec![FullAttention, FullAttention], None));
    let qwen = r#""model_type":"qwen2","max_position_embeddings":16,"sliding_window":16"#;
    let released = format!(r#"{{{qwen},"use_sliding_window":false,"max_window_layers":1}}"#);
    assert_eq!(kinds(&released), (vec![FullAttention, FullAttention], None));
    for fields in [
        r#""use_sliding_window":true,"max_window_layers":1"#,
        r#""layer_types":["full_attention","sliding_attention"]"#,
    ] {
        let (kinds, window) = kinds(&format!("{{{qwen},{fields}}}"));
        assert_eq!((kinds, window), (vec![FullAttention, SlidingAttention], Some(16)));
    }
    let mistral = r#"{"model_type":"mistral","sliding_window":4096,"max_position_embeddings":4096}"#;
    assert_eq!(kinds(mistral), (vec![SlidingAttention, SlidingAttention], Some(4096)));

    for (fields, message) in [
        (r#"{"layer_types":["full_attention"]}"#, "`layer_types`: it names 1 layers, and num_hidden_layers is 2"),
        (
            r#"{"layer_types":["full_attention","linear_attention"]}"#,
            "`layer_types[1]`: `linear_attention` is not supported\nhint: supported are full_attention and sliding",
        ),
        (
            r#"{"layer_types":["full_attention","sliding_attention"]}"#,
            "`sliding_window`: is missing, and layer 1 is of the kind sliding_attention\nhint: ",
        ),
    ] {
        let found = tiny(fields).unwrap_err();
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn unknown_architectures_are_named() {
    let message = tiny(r#"{"architectures":["Gemma3ForCausalLM"]}"#).unwrap_err();
    assert!(message.starts_with("config.json: unknown architecture `Gemma3ForCausalLM`\nhint: supported are Llama"));
    assert!(tiny(r#"{"model_type":"mamba"}"#).unwrap_err().contains("`mamba`"));
}

#[test]
fn what_cannot_be_computed_is_refused_with_its_field() {
    for (fields, field) in [
        (r#"{"num_attention_heads":3}"#, "num_attention_heads"),
        (r#"{"num_key_value_heads":3}"#, "num_key_value_heads"),
        (r#"{"num_attention_heads":0}"#, "num_attention_heads"),
        (r#"{"hidden_size":-1}"#, "hidden_size"),
        (r#"{"hidden_size":18446744073709551615,"head_dim":2}"#, "hidden_size"),
        (r#"{"num_hidden_layers":100000}"#, "num_hidden_layers"),
        (r#"{"vocab_size":0}"#, "vocab_size"),
        (r#"{"head_dim":3}"#, "head_dim"),
        (r#"{"head_dim":512}"#, "head_dim"),
        (r#"{"rms_norm_eps":0}"#, "rms_norm_eps"),
        (r#"{"rope_theta":-1.0}"#, "rope_theta"),
        (r#"{"hidden_act":"gelu"}"#, "hidden_act"),
        (r#"{"attention_bias":true}"#, "attention_bias"),
        (r#"{"rope_scaling":{"type":"yarn","factor":4}}"#, "rope_scaling.rope_type"),
        (r#"{"rope_scaling":{"type":"linear"}}"#, "rope_scaling.factor"),
        (r#"{"eos_token_id":32}"#, "eos_token_id"),
        (r#"{"eos_token_id":[-5]}"#, "eos_token_id"),
        (r#"{"quantization_config":{"quant_method":"gptq"}}"#, "quantization_config"),
    ] {
        let message = tiny(fields).unwrap_err();
        assert!(message.contains(&format!("config.json: `{field}`: ")), "{fields}: {message}");
        assert!(message.contains("\nhint: "), "{message}");
    }
    assert!(read("{").is_err());
    assert!(read("[]").is_err());
}

#[test]
fn a_shape_needs_only_three_fields() {
    let shape: Shape =
        serde_json::from_str(r#"{"hidden_size":256,"num_hidden_layers":6,"num_attention_heads":8}"#).unwrap();
    let config = Config::from_shape(&shape, Some(4096), Path::new("recipe.toml")).unwrap();
    assert_eq!((config.head_dim, config.intermediate_size, config.vocab_size), (32, 704, 4096));
    assert!(Config::from_shape(&shape, None, Path::new("recipe.toml")).is_err());
    let small = Shape { vocab_size: Some(100), ..shape };
    assert!(Config::from_shape(&small, Some(4096), Path::new("recipe.toml")).is_err());
}

#[test]
fn a_field_of_another_type_is_refused_by_name() {
    for field in [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "vocab_size",
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
        "initializer_range",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "tie_word_embeddings",
        "attention_bias",
        "mlp_bias",
        "hidden_act",
        "sliding_window",
        "use_sliding_window",
        "max_window_layers",
        "layer_types",
        "partial_rotary_factor",
        "rope_scaling",
        "rope_parameters",
        "architectures",
        "model_type",
    ] {
        let text = if ["hidden_act", "model_type"].contains(&field) { "3" } else { "\"x\"" };
        for wrong in [text, "{\"x\":[]}", "[[1]]"] {
            if wrong.starts_with('{') && field.starts_with("rope_") {
                continue;
            }
            let refused = tiny(&format!("{{\"{field}\":{wrong}}}")).unwrap_err();
            assert!(refused.starts_with(&format!("config.json: `{field}")), "{refused}");
        }
    }
    for (scaling, field) in [
        (r#"{"rope_type":3}"#, "rope_type"),
        (r#"{"type":["linear"],"factor":2.0}"#, "type"),
        (r#"{"rope_type":"linear","factor":"2"}"#, "factor"),
        (r#"{"rope_type":"linear"}"#, "factor"),
        (r#"{"rope_theta":"1e4"}"#, "rope_theta"),
        (r#"{"rope_theta":1e4,"partial_rotary_factor":0.5}"#, "partial_rotary_factor"),
        (
            r#"{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
                "original_max_position_embeddings":0.5}"#,
            "original_max_position_embeddings",
        ),
    ] {
        for table in ["rope_scaling", "rope_parameters"] {
            let refused = tiny(&format!("{{\"{table}\":{scaling}}}")).unwrap_err();
            assert!(refused.starts_with(&format!("config.json: `{table}.{field}`: ")), "{refused}");
        }
    }
    let whole = tiny("{}").unwrap().to_json();
    assert!(read(&(whole.clone() + " x")).unwrap_err().contains("trailing characters"));
    assert!(read(&"[".repeat(100_000)).is_err());
}

#[test]
fn constants_that_cannot_be_are_refused() {
    for (field, values) in [
        ("rms_norm_eps", ["0", "-1e-6", "1e300", "2"]),
        ("rope_theta", ["0", "-10000", "1e300", "1e16"]),
        ("initializer_range", ["0", "-0.02", "1e300", "1e4"]),
        ("max_position_embeddings", ["0", "-1", "18446744073709551615", "1e9"]),
        ("num_attention_heads", ["0", "3", "-4", "18446744073709551615"]),
        ("num_key_value_heads", ["0", "3", "-1", "8"]),
        ("head_dim", ["0", "3", "-2", "1000000"]),
        ("vocab_size", ["0", "-1", "9223372036854775807", "4194305"]),
    ] {
        for value in values {
            let refused = tiny(&format!("{{\"{field}\":{value}}}")).unwrap_err();
            assert!(refused.starts_with("config.json: `"), "{field} {value}: {refused}");
        }
    }
    for factor in ["0", "-1", "0.5", "1e300"] {
        assert!(tiny(&format!(r#"{{"rope_scaling":{{"type":"linear","factor":{factor}}}}}"#)).is_err(), "{factor}");
    }
}

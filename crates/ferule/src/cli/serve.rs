//! `ferule serve`: a model, or an upstream, behind OpenAI's API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use store::DataFolder;
use store::data_folder::service::ServedModel;
use tasks::data::file;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::data_argument::DataArguments;
use super::model_argument::{ComputeArguments, ModelArguments, counted};
use super::output::Output;
use super::promote::note;
use crate::outcome::{WrongUse, failure};
use crate::serve::access::Keys;
use crate::serve::engine::Engine;
use crate::serve::job::Capacity;
use crate::serve::metrics::Metrics;
use crate::serve::server::{Server, Source};
use crate::serve::sessions::Sessions;
use crate::serve::upstream::Upstream;
use crate::serve::{listener, router};
use crate::visible::note;

/// The interval at which the ledger is asked whether another model is in service.
const WATCH: Duration = Duration::from_millis(500);

/// The most prompts that are made from messages at once.
const PROMPTS: usize = 2;

/// The most large bodies in memory at once.
const LARGE_BODIES: usize = 16;

/// What `ferule serve` reads.
#[derive(clap::Args)]
#[command(after_help = "\
The server writes its address to stdout when it is ready. With --collect, questions and answers are kept in
the data folder, people review them at /review, and the folder says which model is in service: at first MODEL,
later the one that `ferule flywheel turn` or `ferule promote` puts in its place. The server switches models
without dropping a request. On SIGTERM or Ctrl-C it finishes the running requests and ends; a second signal
ends it at once.

    ferule serve judgment
    ferule serve judgment --collect --data ferule-data
    ferule serve --upstream http://127.0.0.1:8000/v1 --allow-egress 127.0.0.1 --collect")]
pub struct Arguments {
    /// A run, a Hugging Face folder, a .gguf file or a pulled repository [default: the model in service of --data]
    model: Option<String>,
    /// Answer from the endpoint at this address instead of a model
    #[arg(long, value_name = "URL", conflicts_with = "model")]
    upstream: Option<String>,
    /// A host to which prompts may be sent; may be given several times
    #[arg(long, value_name = "HOST")]
    allow_egress: Vec<String>,
    /// A file with this server's own key for the upstream
    #[arg(long, value_name = "FILE", requires = "upstream")]
    upstream_key_file: Option<PathBuf>,
    /// The address to listen on; one that other machines can reach needs --api-key-file
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    host: IpAddr,
    /// The port; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// A file with one key on each line; every request must bring one of them
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Keep prompts and answers in the data folder, except where a request says `store: false`
    #[arg(long)]
    collect: bool,
    #[command(flatten)]
    data: DataArguments,
    /// The most completions computed at once
    #[arg(long, value_name = "N", default_value = "32", value_parser = counted::<65_536>)]
    batch: NonZeroUsize,
    /// Completions that may wait for a place; further requests get status 429
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_queue: usize,
    /// The longest completion, in tokens
    #[arg(long, value_name = "N", default_value = "4096")]
    max_tokens: NonZeroUsize,
    /// The longest prompt and completion together, in tokens [default: the model's context, at most 8192]
    #[arg(long, value_name = "N", default_value = "8192")]
    context: NonZeroUsize,
    /// The largest body of a request, in bytes
    #[arg(long, value_name = "N", default_value_t = 4 << 20)]
    max_body: usize,
    /// The most connections at once
    #[arg(long, value_name = "N", default_value = "512")]
    max_connections: NonZeroUsize,
    /// How long running requests may go on after SIGTERM, in seconds
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain_seconds: u64,
    /// Folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    #[command(flatten)]
    compute: ComputeArguments,
}

/// Serves until it is told to stop.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let keys = arguments.api_key_file.as_deref().map(Keys::read).transpose()?;
    if !arguments.host.is_loopback() && keys.is_none() {
        let hint = "give a file of keys with --api-key-file, or listen on 127.0.0.1";
        return Err(WrongUse::error(
            format!("--host {}: others could use the server without a key", arguments.host),
            hint,
        ));
    }
    let data = match arguments.collect || (arguments.model.is_none() && arguments.upstream.is_none()) {
        true => Some(Arc::new(DataFolder::open(&arguments.data.data)?)),
        false => None,
    };
    let _held = data.as_ref().map(|data| data.hold_for_server()).transpose()?;
    let (source, first) = match &arguments.upstream {
        Some(url) => {
            let key = arguments.upstream_key_file.as_deref().map(read_key).transpose()?;
            (
                Source::Upstream(Upstream::new(
                    url,
                    &arguments.allow_egress,
                    key,
                    arguments.batch.get() + arguments.max_queue,
                )?),
                None,
            )
        }
        None => {
            let engine = first_engine(&arguments, data.as_deref())?;
            let first = engine.model().digest.clone();
            (Source::Model(RwLock::new(engine)), Some(first))
        }
    };
    let server = Arc::new(Server {
        name: arguments.model.clone().unwrap_or_else(|| "ferule".into()),
        source,
        keys: keys.unwrap_or_default(),
        address: arguments.host,
        data,
        collect: arguments.collect,
        body_bytes: arguments.max_body,
        max_tokens: arguments.max_tokens.get(),
        metrics: Metrics::default(),
        sessions: Sessions::default(),
        prompts: Arc::new(Semaphore::new(PROMPTS)),
        large_bodies: Semaphore::new(LARGE_BODIES),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(serve(&arguments, server, first));
    // Work that still blocks after the time to drain, such as loading a model, is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(arguments: &Arguments, server: Arc<Server>, first: Option<String>) -> anyhow::Result<()> {
    let address = SocketAddr::new(arguments.host, arguments.port);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        failure(format!("cannot listen on {address}: {error}"), "choose another --port; 0 takes a free one")
    })?;
    let address = listener.local_addr()?;
    if let (Some(first), Some(data)) = (first, server.data.clone()) {
        tokio::spawn(watch(arguments.clone_for_watch(), server.clone(), data, first));
    }
    // This comes before the address is printed, because whoever reads the address may send a signal at once.
    let end = told_to_stop()?;
    let mut output = Output::stdout();
    output.text(&format!("http://{address}\n"))?;
    output.flush()?;
    drop(output);
    let drain = Duration::from_secs(arguments.drain_seconds);
    listener::serve(listener, router(server), arguments.max_connections.get(), drain, end).await;
    Ok(())
}

/// The arguments that the watcher of the ledger needs.
struct Watching {
    runs: PathBuf,
    compute: ComputeArguments,
    capacity: Capacity,
}

impl Arguments {
    fn capacity(&self) -> Capacity {
        Capacity { batch: self.batch.get(), queue: self.max_queue, context: self.context.get() }
    }

    fn clone_for_watch(&self) -> Watching {
        Watching { runs: self.runs.clone(), compute: self.compute.clone(), capacity: self.capacity() }
    }
}

/// The engine of the model in service. If there is none, the given model is put into service.
fn first_engine(arguments: &Arguments, data: Option<&DataFolder>) -> anyhow::Result<Engine> {
    let model = |name: &Path| ModelArguments {
        model: name.to_path_buf(),
        runs: arguments.runs.clone(),
        compute: arguments.compute.clone(),
    };
    let Some(data) = data else {
        let name = arguments.model.as_deref().unwrap_or_default();
        return Engine::start(&model(Path::new(name)), None, arguments.capacity());
    };
    let in_service = match (data.in_service()?, &arguments.model) {
        (Some(in_service), named) => {
            if let Some(name) = named {
                note!("serving {}, which is in service; to serve {name}, use `ferule promote {name}`", in_service.path);
            }
            in_service
        }
        (None, Some(name)) => {
            let noted = note(data, name, &arguments.runs)?;
            data.promote("operator", &noted.id, "served first")?;
            noted
        }
        (None, None) => {
            let hint = "name one: ferule serve MODEL --collect";
            return Err(failure(format!("no model is in service in {}", data.path().display()), hint));
        }
    };
    start(data, &in_service, arguments.runs.clone(), arguments.compute.clone(), arguments.capacity())
}

fn start(
    data: &DataFolder,
    model: &ServedModel,
    runs: PathBuf,
    compute: ComputeArguments,
    capacity: Capacity,
) -> anyhow::Result<Engine> {
    let arguments = ModelArguments { model: data.resolve(&model.path), runs, compute };
    Engine::start(&arguments, Some(model.id.clone()), capacity)
}

/// Switches to another model when the ledger says so. If it cannot be loaded, an error names it and the old model
/// stays.
async fn watch(watching: Watching, server: Arc<Server>, data: Arc<DataFolder>, mut now: String) {
    let watching = Arc::new(watching);
    loop {
        tokio::time::sleep(WATCH).await;
        let (data, watching, before) = (data.clone(), watching.clone(), now.clone());
        let look = move || -> anyhow::Result<Option<Engine>> {
            let Some(model) = data.in_service()?.filter(|model| model.id != before) else { return Ok(None) };
            Ok(Some(start(&data, &model, watching.runs.clone(), watching.compute.clone(), watching.capacity)?))
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(Ok(Some(engine))) => {
                now.clone_from(&engine.model().digest);
                note!("now serving {}", engine.model().name);
                server.replace(engine);
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                note!("cannot load the model that was put into service, and go on with the old one: {error:#}");
                tokio::time::sleep(10 * WATCH).await;
            }
            Err(_) => return,
        }
    }
}

fn read_key(path: &Path) -> anyhow::Result<String> {
    let text = file::read_to_string(path);
    text.map(|text| text.trim().to_string())
        .map_err(|error| failure(format!("{}: {error}", path.display()), "give a file that holds the key alone"))
}

/// Completes when the process is told to stop. A second signal ends the process at once.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let (send, mut told) = tokio::sync::mpsc::unbounded_channel();
    ctrlc::set_handler(move || {
        if send.send(()).is_err() {
            std::process::exit(130);
        }
        eprintln!("finishing the running requests; press Ctrl-C again to stop at once");
    })?;
    Ok(async move {
        told.recv().await;
        // From now on nothing handles signals, so the next one ends the process.
        told.close();
    })
}

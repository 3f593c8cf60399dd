//! Arguments of `visage top`, and its refresh loop.

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use ratatui::{buffer::Buffer, layout::Rect};
use tokio::{
    pin,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::cli::{
    args::watch_flag::parse_interval,
    client::Client,
    commands::top::{
        layout,
        rates::Rates,
        sample::Sample,
        screen::{Key, Screen, keys},
        text::plain_text,
        view::View,
    },
    context::{Context, Outcome},
    error::Error,
    status_text::describe,
};

const EXAMPLES: &str = "\
Examples:
  visage top                                   until q or Ctrl-C
  visage top --interval 5s
  visage top --once                            print once as plain text, for pipes and mails
  visage top --server gpu-1:50051 --metrics gpu-1:50052

Rates and times are those of the last interval; times without a call are shown
as -. They come from the server's metrics page.";

/// Width of the plain text.
const COLUMNS: u16 = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Refresh interval
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Print once, after one interval, and exit
    #[arg(long)]
    once: bool,
    /// Address of the server's HTTP port [default: the port that the server reports, on the host of
    /// --server]
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
}

pub(crate) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    if context.output.is_json() {
        return Err(Error::Usage(
            "top has no JSON output; use `visage --json trainings list` and the metrics page"
                .to_owned(),
        ));
    }
    let client = context.connect().await?;
    if args.once {
        return once(&args, &client, context).await;
    }
    if !io::stdout().is_terminal() {
        return Err(Error::Usage(
            "stdout is not a terminal; use --once for plain text".to_owned(),
        ));
    }
    live(&args, &client, context.client.color).await
}

async fn once(args: &Args, client: &Client, context: &Context) -> Result<Outcome, Error> {
    let earlier = Sample::take(client, args.metrics.as_deref()).await?;
    sleep(args.interval).await;
    let now = Sample::take(client, args.metrics.as_deref()).await?;
    let view = View {
        server: client.server(),
        rates: &Rates::between(Some(&earlier), &now),
        earlier: Some(&earlier),
        now: &now,
        lost: None,
        color: false,
        is_live: false,
    };
    let area = Rect::new(0, 0, COLUMNS, layout::height(&view));
    let mut buffer = Buffer::empty(area);
    layout::draw(&view, area, &mut buffer);
    context.output.line(plain_text(&buffer).trim_end())?;
    Ok(Outcome::Done)
}

/// The latest state of the server, shared between refreshing and drawing.
struct Latest {
    now: Sample,
    earlier: Option<Sample>,
    rates: Rates,
    /// Why the latest refresh failed.
    lost: Option<String>,
}

async fn live(args: &Args, client: &Client, color: bool) -> Result<Outcome, Error> {
    // Before the screen is set up, so that a refusal is printed as by any other command.
    let first = Sample::take(client, args.metrics.as_deref()).await?;
    let (latest, mut changed) = watch::channel(Latest {
        rates: Rates::between(None, &first),
        now: first,
        earlier: None,
        lost: None,
    });
    let mut screen = Screen::enter().map_err(Error::Stdout)?;
    let mut keys = keys();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Stdout)?;
    let refreshing = refresh(client, args, &latest);
    pin!(refreshing);
    loop {
        draw(
            &mut screen,
            client.server(),
            &changed.borrow_and_update(),
            color,
        )
        .map_err(Error::Stdout)?;
        tokio::select! {
            () = &mut refreshing => {}
            _ = changed.changed() => {}
            key = keys.recv() => match key {
                // A closed channel means that the terminal is gone.
                Some(Key::Quit) | None => return Ok(Outcome::Done),
                Some(Key::Redraw) => {}
            },
            // Handled, so that the terminal is restored.
            _ = terminate.recv() => return Ok(Outcome::Done),
        }
    }
}

fn draw(screen: &mut Screen, server: &str, latest: &Latest, color: bool) -> io::Result<()> {
    screen.draw(&View {
        server,
        now: &latest.now,
        earlier: latest.earlier.as_ref(),
        rates: &latest.rates,
        lost: latest.lost.as_deref(),
        color,
        is_live: true,
    })
}

/// Takes samples forever. An unreachable server is retried.
async fn refresh(client: &Client, args: &Args, latest: &watch::Sender<Latest>) {
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let sample = Sample::take(client, args.metrics.as_deref()).await;
        latest.send_modify(|latest| match sample {
            Ok(sample) => {
                latest.rates = Rates::between(Some(&latest.now), &sample);
                latest.earlier = Some(std::mem::replace(&mut latest.now, sample));
                latest.lost = None;
            }
            Err(Error::Refused(status)) => latest.lost = Some(describe(&status)),
            Err(error) => latest.lost = Some(error.to_string()),
        });
    }
}

//! `visage top`: trainings and serving at a glance, again and again.
//!
//! - `sample`: what the server says, and what two moments say together. `page` reads its metrics page.
//! - `view`: how that is shown.

mod page;
mod sample;
mod view;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    buffer::Buffer,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyModifiers},
        execute, terminal,
    },
    layout::Rect,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{Context, Error, Outcome, client::Client, error::describe};

use self::{
    sample::{Rates, Sample},
    view::View,
};

const EXAMPLES: &str = "\
Examples:
  visage top                                   until q or Ctrl-C
  visage top --interval 5s
  visage top --once                            one look as plain text, for pipes and mails
  visage top --server gpu-1:50051 --metrics gpu-1:50052

Rates and times are those of the last interval; times without a call since then are shown as -. They come from the server's metrics page.";

/// Columns of the plain text, where there is no terminal that says.
const COLUMNS: u16 = 100;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Look twice, print once what was seen, and end
    #[arg(long)]
    once: bool,
    /// The server's HTTP port [default: the one that the server says, on the host of --server]
    #[arg(long, value_name = "HOST:PORT")]
    metrics: Option<String>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    match allowed.contains(&duration) {
        true => Ok(duration),
        false => Err("expected a duration from 100ms to 1h".to_owned()),
    }
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Outcome, Error> {
    if context.output.is_json() {
        return Err(Error::Usage(
            "top is for people; programs get the same from `visage --json trainings list` and the metrics page".to_owned(),
        ));
    }
    let client = context.connect().await?;
    if args.once {
        return once(&args, &client, context).await;
    }
    if !io::stdout().is_terminal() {
        return Err(Error::Usage(
            "stdout is no terminal to draw on; add --once for plain text".to_owned(),
        ));
    }
    live(&args, &client, context.client.color).await
}

async fn once(args: &Args, client: &Client, context: &Context) -> Result<Outcome, Error> {
    let earlier = Sample::take(client, args.metrics.as_deref()).await?;
    tokio::time::sleep(args.interval).await;
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
    let area = Rect::new(0, 0, COLUMNS, view.height());
    let mut buffer = Buffer::empty(area);
    view.draw(area, &mut buffer);
    let text = plain(&buffer);
    context.output.line(text.trim_end())?;
    Ok(Outcome::Done)
}

/// What a buffer shows, without colours and without spaces at the ends of its lines.
fn plain(buffer: &Buffer) -> String {
    let area = buffer.area();
    let mut text = String::new();
    for y in area.top()..area.bottom() {
        let cells = (area.left()..area.right()).filter_map(|x| buffer.cell((x, y)));
        let line: String = cells.map(|cell| cell.symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is seen of the server, for the one who draws.
#[derive(Default)]
struct Seen {
    now: Option<Sample>,
    earlier: Option<Sample>,
    rates: Rates,
    lost: Option<String>,
}

async fn live(args: &Args, client: &Client, color: bool) -> Result<Outcome, Error> {
    // Before the screen is taken, so that a server that refuses is told of as by every other command.
    let first = Sample::take(client, args.metrics.as_deref()).await?;
    let (seen, mut changed) = watch::channel(Seen {
        rates: Rates::between(None, &first),
        now: Some(first),
        ..Seen::default()
    });
    let mut screen = Screen::take().map_err(Error::Stdout)?;
    let mut keys = keys();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Stdout)?;
    let looking = look(client, args, &seen);
    tokio::pin!(looking);
    loop {
        screen
            .draw(client.server(), &changed.borrow_and_update(), color)
            .map_err(Error::Stdout)?;
        tokio::select! {
            () = &mut looking => {}
            _ = changed.changed() => {}
            key = keys.recv() => match key {
                // The terminal is gone when there are no keys any more.
                Some(Key::Quit) | None => return Ok(Outcome::Done),
                Some(Key::Redraw) => {}
            },
            // By somebody else: the terminal is given back all the same.
            _ = terminate.recv() => return Ok(Outcome::Done),
        }
    }
}

/// Looks again and again. A server that does not answer may come back.
async fn look(client: &Client, args: &Args, seen: &watch::Sender<Seen>) {
    let mut ticks = interval(args.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let sample = Sample::take(client, args.metrics.as_deref()).await;
        seen.send_modify(|seen| match sample {
            Ok(sample) => {
                seen.earlier = seen.now.take();
                seen.rates = Rates::between(seen.earlier.as_ref(), &sample);
                seen.now = Some(sample);
                seen.lost = None;
            }
            Err(Error::Refused(status)) => seen.lost = Some(describe(&status)),
            Err(error) => seen.lost = Some(error.to_string()),
        });
    }
}

enum Key {
    Quit,
    Redraw,
}

/// Reads the keyboard on a thread of its own, which the end of the program ends.
fn keys() -> mpsc::Receiver<Key> {
    let (sender, receiver) = mpsc::channel(16);
    drop(std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Some(key) = key(&event)
                && sender.blocking_send(key).is_err()
            {
                return;
            }
        }
    }));
    receiver
}

fn key(event: &Event) -> Option<Key> {
    if matches!(event, Event::Resize(..)) {
        return Some(Key::Redraw);
    }
    let key = event.as_key_press_event()?;
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    // In raw mode Ctrl-C is a key like any other.
    let quits = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
        || (is_control && key.code == KeyCode::Char('c'));
    quits.then_some(Key::Quit)
}

/// The terminal, which is given back as it was when this is dropped, also by a panic.
struct Screen(Terminal<CrosstermBackend<io::Stdout>>);

impl Screen {
    fn take() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // From here on there is something to give back.
        let screen = Self(Terminal::new(CrosstermBackend::new(io::stdout()))?);
        execute!(io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    fn draw(&mut self, server: &str, seen: &Seen, color: bool) -> io::Result<()> {
        let Some(now) = &seen.now else {
            return Ok(());
        };
        let view = View {
            server,
            now,
            earlier: seen.earlier.as_ref(),
            rates: &seen.rates,
            lost: seen.lost.as_deref(),
            color,
            is_live: true,
        };
        self.0.draw(|frame| {
            let area = frame.area();
            view.draw(area, frame.buffer_mut());
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        execute!(io::stdout(), terminal::LeaveAlternateScreen, cursor::Show).ok();
        terminal::disable_raw_mode().ok();
    }
}

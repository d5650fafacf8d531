//! docs/performance.md, whose tables and plot the benches write: each its own part, between two marks, if
//! `HOSTMOUNT_REWRITE=yes` is set. Printed they are in any case.
#![allow(dead_code, reason = "only a part of it is used in each bench")]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn docs(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(file)
}

fn rewrites() -> bool {
    env::var_os("HOSTMOUNT_REWRITE").is_some_and(|value| value == "yes")
}

/// Prints a part of the page, and puts it there.
pub(crate) fn write(part: &str, text: &str) {
    print!("{text}");
    if !rewrites() {
        return;
    }
    let page = fs::read_to_string(docs("performance.md")).unwrap();
    let mark = format!("<!-- bench {part} -->\n");
    let (head, rest) = page.split_once(&mark).expect("the page has a place for it");
    let (_, tail) = rest.split_once("<!-- end -->\n").expect("the page has an end of it");
    fs::write(docs("performance.md"), format!("{head}{mark}{text}<!-- end -->\n{tail}")).unwrap();
}

/// The same with a plot.
pub(crate) fn write_plot(file: &str, svg: &str) {
    if rewrites() {
        fs::write(docs(file), svg).unwrap();
    }
}

/// `NAME` of the environment, or this: how many rounds, files, volumes there are.
pub(crate) fn number(name: &str, usual: usize) -> usize {
    env::var(name).ok().map_or(usual, |value| value.parse().expect("a number"))
}

/// In milliseconds.
pub(crate) fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    milliseconds(begin.elapsed())
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One line of a plot: its name, and its points.
pub(crate) type Line = (&'static str, Vec<(f64, f64)>);

const COLOURS: [&str; 4] = ["#1f77b4", "#d62728", "#2ca02c", "#9467bd"];
/// The place of the lines in the picture.
const LEFT: f64 = 60.0;
const TOP: f64 = 20.0;
const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 240.0;

/// A plot of lines, as SVG: the horizontal axis is logarithmic, the vertical one begins with 0.
pub(crate) fn plot(across: &str, up: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let [least, most] = [f64::min, f64::max].map(|choose| points().map(|(x, _)| x).fold(1.0, choose).ln());
    let top = points().map(|(_, y)| y).fold(1e-3, f64::max) * 1.1;
    let place = |(x, y): (f64, f64)| {
        (LEFT + WIDTH * (x.ln() - least) / (most - least).max(1e-9), TOP + HEIGHT * (1.0 - y / top))
    };
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>\n\
         <text x=\"{LEFT}\" y=\"14\">{up}</text>\n<text x=\"{right}\" y=\"{}\" text-anchor=\"end\">{across}</text>\n",
        right + 140.0,
        bottom + 50.0,
        bottom + 40.0
    );
    let mut add = |line: String| svg.push_str(&(line + "\n"));
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let (_, y) = place((1.0, value));
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>", LEFT - 6.0, y + 4.0));
    }
    let mut marked: Vec<f64> = points().map(|(x, _)| x).collect();
    marked.sort_by(f64::total_cmp);
    marked.dedup();
    for value in marked {
        let (x, _) = place((value, 0.0));
        add(format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{value}</text>", bottom + 18.0));
    }
    for (number, ((name, points), colour)) in lines.iter().zip(COLOURS).enumerate() {
        let places: Vec<_> = points.iter().map(|point| place(*point)).collect();
        let way: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        add(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", way.join(" ")));
        for (x, y) in places {
            add(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
        let y = TOP + 16.0 * number as f64 + 10.0;
        add(format!("<text x=\"{}\" y=\"{y}\" fill=\"{colour}\">{name}</text>", right + 10.0));
    }
    svg + "</svg>\n"
}

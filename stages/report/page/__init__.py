"""reports/index.html: the page that shows a build to a person.

Enter at `render.render()`. `sections` turns reports into what the template shows, `figures` draws its pictures in the
SVG of `svg`; the words are in `page.html.j2`, the looks in `style.css.j2`.
May import stages.report.schemas, stages.report.verdict, stages.params and stages.core.
"""

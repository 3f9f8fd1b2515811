"""Draw reports/index.html, the page that shows the results of a build.

Start reading at `render.render()`. `sections` computes the values that the template shows, `figures` draws the
pictures, and `svg` has the shapes that the pictures consist of. The text is in `page.html.j2`, and the style in
`style.css.j2`. May import stages.report.schemas, stages.report.verdict, stages.params and stages.core.
"""

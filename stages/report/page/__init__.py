"""Draw reports/index.html, the page that shows the results of a build.

Start reading at `render.render()`. `sections` computes the values that the template shows, `figures` draws the
pictures, and `svg` draws the shapes in the pictures. The text of the page is in `page.html.j2`, and the style of the
page is in `style.css.j2`. May import stages.report.schemas, stages.report.verdict, stages.metrics, stages.params and
stages.core.
"""

"""How things look and are written. Knows no session.

Read palette, page_style and layout; chart_style, ruler and token_text (pictures), systems (whose colour is whose), figures (how figures are
written); site (the pages), glossary and words.
"""

"""Update what the web page of an explainer is made with, and take its screenshots."""

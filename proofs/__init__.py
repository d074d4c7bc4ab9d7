"""Long checks that are no part of the tests."""

from tests.netns import wire_fixture as wire_fixture

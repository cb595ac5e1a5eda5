from tests.netns import wire_fixture as wire_fixture
from tests.watching import real_lake as real_lake

//! StatusNotifierItem, by ksni: what KDE, Xfce, LXQt and (with an extension) GNOME have in their panels.

use ksni::{
    Handle, Icon, MenuItem, Status, ToolTip, Tray, TrayMethods as _,
    menu::{StandardItem, SubMenu},
};
use tokio::sync::mpsc;

use super::{
    Panel, icon,
    state::{Action, Entry, Light, View},
};

/// Sizes of the icon: panels choose, and scale what they lack.
const SIZES: [u16; 3] = [22, 32, 64];

/// There is no panel to be in.
#[derive(Debug, thiserror::Error)]
#[error("this session has no desktop with a panel")]
pub(crate) struct PanelError(#[source] ksni::Error);

/// The icon on the bus. A panel that comes later shows it, too.
pub(super) struct StatusNotifierItem(Handle<Item>);

struct Item {
    view: View,
    clicks: mpsc::Sender<Action>,
}

impl StatusNotifierItem {
    /// Puts an icon on the session's bus; clicks come by the channel.
    pub(super) async fn begin(clicks: mpsc::Sender<Action>) -> Result<Self, PanelError> {
        let item = Item { view: View::default(), clicks };
        Ok(Self(item.assume_sni_available(true).spawn().await.map_err(PanelError)?))
    }
}

impl Panel for StatusNotifierItem {
    async fn show(&self, view: View) {
        // `None`: the bus is gone, and with it the desktop.
        let _shown = self.0.update(move |item| item.view = view).await;
    }
}

impl Tray for Item {
    const MENU_ON_ACTIVATE: bool = true;

    fn id(&self) -> String {
        "pomerium-cli".to_owned()
    }

    fn title(&self) -> String {
        self.view.title.clone()
    }

    fn status(&self) -> Status {
        // What needs somebody is not to be hidden among the idle icons.
        if self.view.light == Light::Trouble { Status::NeedsAttention } else { Status::Active }
    }

    fn icon_pixmap(&self) -> Vec<Icon> {
        let icon = |size: u16| Icon {
            width: size.into(),
            height: size.into(),
            data: icon::argb(self.view.light, size),
        };
        SIZES.map(icon).into()
    }

    fn attention_icon_pixmap(&self) -> Vec<Icon> {
        self.icon_pixmap()
    }

    fn tool_tip(&self) -> ToolTip {
        ToolTip { title: self.view.title.clone(), ..ToolTip::default() }
    }

    fn menu(&self) -> Vec<MenuItem<Self>> {
        self.view.menu.iter().map(item).collect()
    }
}

fn item(entry: &Entry) -> MenuItem<Item> {
    // An underscore would mark the letter after it.
    let label = |text: &str| text.replace('_', "__");
    match entry {
        Entry::Line => MenuItem::Separator,
        Entry::Text(text) => {
            StandardItem { label: label(text), enabled: false, ..StandardItem::default() }.into()
        }
        Entry::Do(text, action) => {
            let action = action.clone();
            let activate = Box::new(move |item: &mut Item| {
                // Nobody clicks so fast; one more than fits is lost.
                let _dropped = item.clicks.try_send(action.clone());
            });
            StandardItem { label: label(text), activate, ..StandardItem::default() }.into()
        }
        Entry::More(text, more) => {
            SubMenu { label: label(text), submenu: more.iter().map(item).collect(), ..SubMenu::default() }
                .into()
        }
    }
}
